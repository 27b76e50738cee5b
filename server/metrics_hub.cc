#include "server/metrics_hub.h"

#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::server {

struct MetricsHub::Subscription::State {
  // Held during the callback, so that its owner can wait for it.
  Mutex callback_mutex;
  std::function<void()> on_rows GUARDED_BY(callback_mutex);
  int64_t job_id = 0;
};

MetricsHub::Subscription::~Subscription() {
  {
    MutexLock lock(&hub_->mutex_);
    const auto [first, last] = hub_->subscriptions_.equal_range(state_->job_id);
    for (auto position = first; position != last; ++position) {
      if (position->second == state_) {
        hub_->subscriptions_.erase(position);
        break;
      }
    }
  }
  MutexLock lock(&state_->callback_mutex);
  state_->on_rows = nullptr;
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> MetricsHub::Query(int64_t job_id,
                                                                     int64_t from_step,
                                                                     int64_t to_step,
                                                                     int max_points) const {
  LASP_ASSIGN_OR_RETURN(const int64_t count, store_->CountSteps(job_id, from_step, to_step));
  int64_t stride = 1;
  if (count > max_points) {
    // Every stride-th row and the last one make at most max_points.
    stride = max_points <= 2 ? count : (count - 2) / (max_points - 1) + 1;
  }
  LASP_ASSIGN_OR_RETURN(auto steps, store_->ReadSteps(job_id, from_step, to_step, stride));
  if (max_points == 1 && steps.size() > 1) {
    steps.erase(steps.begin(), steps.end() - 1);
  }
  return steps;
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> MetricsHub::Next(int64_t job_id, Cursor* cursor,
                                                                    int limit) const {
  while (true) {
    if (cursor->generation > 0) {
      LASP_ASSIGN_OR_RETURN(auto steps, store_->ReadGenerationSteps(job_id, cursor->generation,
                                                                    cursor->after_step, limit));
      if (!steps.empty()) {
        cursor->after_step = steps.back().step();
        return steps;
      }
    }
    LASP_ASSIGN_OR_RETURN(const int64_t next, store_->NextGeneration(job_id, cursor->generation));
    if (next == 0) {
      return std::vector<lasp::v1::StepMetrics>();
    }
    // The first generation keeps the step asked for; later ones are given from where they begin.
    if (cursor->generation > 0) {
      cursor->after_step = 0;
    }
    cursor->generation = next;
  }
}

std::unique_ptr<MetricsHub::Subscription> MetricsHub::Subscribe(int64_t job_id,
                                                                std::function<void()> on_rows) {
  auto state = std::make_shared<Subscription::State>();
  {
    MutexLock lock(&state->callback_mutex);
    state->on_rows = std::move(on_rows);
    state->job_id = job_id;
  }
  {
    MutexLock lock(&mutex_);
    subscriptions_.emplace(job_id, state);
  }
  return std::unique_ptr<Subscription>(new Subscription(this, std::move(state)));
}

void MetricsHub::Notify(int64_t job_id) {
  std::vector<std::shared_ptr<Subscription::State>> woken;
  {
    MutexLock lock(&mutex_);
    const auto [first, last] = subscriptions_.equal_range(job_id);
    for (auto position = first; position != last; ++position) {
      woken.push_back(position->second);
    }
  }
  for (const auto& state : woken) {
    MutexLock lock(&state->callback_mutex);
    if (state->on_rows) {
      state->on_rows();
    }
  }
}

}  // namespace lasp::server
