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

namespace lasp::server {

// Answered from the store; a call blocks for one short read of it. Thread-safe.
class MetricsHub {
 public:
  // Where a follower stands.
  struct Cursor {
    // 0: the oldest generation that still has a row.
    int64_t generation = 0;
    // The next row has a greater step.
    int64_t after_step = 0;
  };

  // Tells about new rows while it lives. Its destruction waits for a callback in progress.
  class Subscription {
   public:
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

   private:
    friend class MetricsHub;
    struct State;

    Subscription(MetricsHub* hub, std::shared_ptr<State> state)
        : hub_(hub), state_(std::move(state)) {}

    MetricsHub* const hub_;
    const std::shared_ptr<State> state_;
  };

  explicit MetricsHub(JobStore* store) : store_(store) {}

  // Steps from_step to to_step (0: the last), both inclusive, in order; a longer range than
  // `max_points` is thinned evenly, its first and last rows kept.
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> Query(int64_t job_id, int64_t from_step,
                                                           int64_t to_step, int max_points) const;

  // At most `limit` rows after the cursor, which moves behind them: first the rest of its
  // generation, then newer ones from wherever they begin. Empty when there are no more yet.
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> Next(int64_t job_id, Cursor* cursor,
                                                          int limit) const;

  // `on_rows` is called after rows of the job have been committed: quick, must not block. Subscribe
  // first, then call Next until it is empty.
  std::unique_ptr<Subscription> Subscribe(int64_t job_id, std::function<void()> on_rows);

  // --- the controller's side ---
  void Notify(int64_t job_id);

 private:
  JobStore* const store_;
  Mutex mutex_;
  std::multimap<int64_t, std::shared_ptr<Subscription::State>> subscriptions_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
