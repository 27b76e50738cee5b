// What the ranks of this agent show to Prometheus. Ranks open no port: they report every step to
// the agent, which shows them all on its own.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "worker/telemetry/metric_families.h"

namespace lasp::worker {

// Series carry training_job (the resource name), generation and rank; those of an ended rank stay
// for `retention`, long enough for a last scrape, then go, scraped or not, so that their number
// stays bounded.
// Thread-safe.
class RankMetrics : public prometheus::Collectable {
 public:
  // `clock` outlives it.
  RankMetrics(std::string worker_id, const Clock* clock,
              absl::Duration retention = absl::Minutes(5));

  void Started(const lasp::v1::Fence& fence, int slot);
  void Stepped(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step);
  // Whether it was alive until now.
  bool Ended(const lasp::v1::Fence& fence);
  int LiveRanks() const;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  friend class RankMetricsTestPeer;

  struct Series {
    Series();
    MetricLabels labels;
    int slot = 0;
    int64_t steps = 0;
    lasp::internal::v1::RankStep last;
    // Of the last step that carried them; rank 0 only.
    lasp::v1::StepMetrics metrics;
    bool has_metrics = false;
    double last_step_time = 0;
    BucketCounter step_seconds;
    std::map<std::string, BucketCounter> phase_seconds;
    absl::Duration remove_at = absl::InfiniteDuration();
    // A later job of the same name has the same labels, and shows its series instead.
    bool replaced = false;
  };

  // The job's uid, generation and rank.
  using Key = std::tuple<std::string, int64_t, int32_t>;

  static Key KeyOf(const lasp::v1::Fence& fence);
  void RemoveOld() const REQUIRES_LOCK(mutex_);

  const std::string worker_id_;
  const Clock* const clock_;
  const absl::Duration retention_;
  mutable Mutex mutex_;
  mutable std::map<Key, std::unique_ptr<Series>> series_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
