// What the agent itself shows to Prometheus.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "proto/rpc/mutex.h"
#include "worker/telemetry/rank_metrics.h"

namespace lasp::worker {

// Thread-safe.
class AgentMetrics : public prometheus::Collectable {
 public:
  // `ranks` outlives it.
  AgentMetrics(int slots, const RankMetrics* ranks) : slots_(slots), ranks_(ranks) {}

  // Counts a reconnect each time a connection comes back.
  void SetConnected(bool connected);
  void SetBufferedSteps(size_t buffered, int64_t thinned);
  void SetLogBytes(int64_t sent, int64_t dropped);
  void RankStarted();
  // `code` is what the rank itself said of its end, as absl::StatusCode; 0 where it said nothing.
  void RankEnded(int exit_code, int code);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const int slots_;
  const RankMetrics* const ranks_;
  mutable Mutex mutex_;
  bool connected_ GUARDED_BY(mutex_) = false;
  int64_t connections_ GUARDED_BY(mutex_) = 0;
  size_t buffered_steps_ GUARDED_BY(mutex_) = 0;
  int64_t thinned_steps_ GUARDED_BY(mutex_) = 0;
  int64_t log_sent_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t log_dropped_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t ranks_started_ GUARDED_BY(mutex_) = 0;
  std::map<int, int64_t> ranks_ended_ GUARDED_BY(mutex_);
  // By code. Those that alerts ask for are there before the first, which would go unseen else.
  std::map<int, int64_t> rank_errors_ GUARDED_BY(mutex_) = {
      {static_cast<int>(absl::StatusCode::kUnavailable), 0},
      {static_cast<int>(absl::StatusCode::kDeadlineExceeded), 0}};
};

}  // namespace lasp::worker
