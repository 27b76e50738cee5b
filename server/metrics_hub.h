// The step metrics of jobs: ranges, and following a job that runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/step_metrics.pb.h"
#include "proto/rpc/mutex.h"
#include "server/job_store.h"
#include "server/step_position.h"

namespace lasp::server {

// Answered from the store; a call blocks for one short read of it. Thread-safe.
class MetricsHub {
 public:
  // Follows one job: tells about new rows while it lives, and reads them. Its destruction waits for
  // a callback in progress. Next is for one thread at a time.
  class Subscription {
   public:
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // At most `limit` rows, each once: first the rest of the generation begun, then newer ones from
    // wherever they begin. Empty when there are no more yet. Asks nothing of the store where no row
    // has been told of since the last one was read, unless `thorough`.
    absl::StatusOr<std::vector<lasp::v1::StepMetrics>> Next(int limit, bool thorough);

   private:
    friend class MetricsHub;
    struct State;

    Subscription(MetricsHub* hub, int64_t job_id, StepPosition after, std::shared_ptr<State> state)
        : hub_(hub), job_id_(job_id), position_(after), state_(std::move(state)) {}

    absl::StatusOr<std::vector<lasp::v1::StepMetrics>> Read(int limit);

    MetricsHub* const hub_;
    const int64_t job_id_;
    // The last row read, or what to begin after; generation 0 for the oldest that still has rows.
    StepPosition position_;
    // Everything stored before the subscription has been read.
    bool caught_up_ = false;
    const std::shared_ptr<State> state_;
  };

  explicit MetricsHub(JobStore* store) : store_(store) {}

  // Steps from_step to to_step (0: the last), both inclusive, in order; a longer range than
  // `max_points` is thinned evenly, its first and last rows kept.
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> Query(int64_t job_id, int64_t from_step,
                                                           int64_t to_step, int max_points) const;

  // Rows after `after`, whose generation may be 0: the oldest that still has rows. `on_rows` is
  // called after rows of the job have been committed: quick, must not block. Subscribe first, then
  // call Next until it is empty.
  std::unique_ptr<Subscription> Subscribe(int64_t job_id, StepPosition after,
                                          std::function<void()> on_rows);

  size_t subscription_count() const;

  // --- the controller's side ---

  // Rows of the job have been committed, up to `newest`; without it, only that followers should
  // look again.
  void Notify(int64_t job_id, StepPosition newest);

 private:
  JobStore* const store_;
  mutable Mutex mutex_;
  std::multimap<int64_t, std::shared_ptr<Subscription::State>> subscriptions_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
