#include "server/metrics_hub.h"

#include <algorithm>
#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::server {

struct MetricsHub::Subscription::State {
  // Held during the callback, so that its owner can wait for it.
  Mutex callback_mutex;
  std::function<void()> on_rows GUARDED_BY(callback_mutex);
  // The newest row told of.
  StepPosition newest GUARDED_BY(callback_mutex);
};

MetricsHub::Subscription::~Subscription() {
  {
    MutexLock lock(&hub_->mutex_);
    const auto [first, last] = hub_->subscriptions_.equal_range(job_id_);
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

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> MetricsHub::Subscription::Next(int limit,
                                                                                  bool thorough) {
  StepPosition newest;
  {
    MutexLock lock(&state_->callback_mutex);
    newest = state_->newest;
  }
  if (caught_up_ && !thorough) {
    if (newest <= position_) {
      return std::vector<lasp::v1::StepMetrics>();
    }
    if (newest.generation == position_.generation) {
      // A query that has its rows does not go on to look through those of older generations.
      limit = static_cast<int>(std::min<int64_t>(limit, newest.step - position_.step));
    }
  }
  LASP_ASSIGN_OR_RETURN(auto steps, Read(limit));
  if (steps.empty()) {
    caught_up_ = true;
    // Told of and not there: thinned out, or a newer generation's by now.
    position_ = std::max(position_, newest);
  }
  return steps;
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> MetricsHub::Subscription::Read(int limit) {
  const JobStore& store = *hub_->store_;
  while (true) {
    if (position_.generation > 0) {
      LASP_ASSIGN_OR_RETURN(auto steps, store.ReadGenerationSteps(job_id_, position_.generation,
                                                                  position_.step, limit));
      if (!steps.empty()) {
        position_.step = steps.back().step();
        return steps;
      }
    }
    LASP_ASSIGN_OR_RETURN(const int64_t next, store.NextGeneration(job_id_, position_.generation));
    if (next == 0) {
      return std::vector<lasp::v1::StepMetrics>();
    }
    // The first generation keeps the step asked for; later ones are given from where they begin.
    if (position_.generation > 0) {
      position_.step = 0;
    }
    position_.generation = next;
  }
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

std::unique_ptr<MetricsHub::Subscription> MetricsHub::Subscribe(int64_t job_id, StepPosition after,
                                                                std::function<void()> on_rows) {
  auto state = std::make_shared<Subscription::State>();
  {
    MutexLock lock(&state->callback_mutex);
    state->on_rows = std::move(on_rows);
  }
  {
    MutexLock lock(&mutex_);
    subscriptions_.emplace(job_id, state);
  }
  return std::unique_ptr<Subscription>(new Subscription(this, job_id, after, std::move(state)));
}

size_t MetricsHub::subscription_count() const {
  MutexLock lock(&mutex_);
  return subscriptions_.size();
}

void MetricsHub::Notify(int64_t job_id, StepPosition newest) {
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
    state->newest = std::max(state->newest, newest);
    if (state->on_rows) {
      state->on_rows();
    }
  }
}

}  // namespace lasp::server
