// What the ranks of this agent show to Prometheus. Ranks open no port: they report every step to
// the agent, which shows them all on its own.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "worker/telemetry/rank_series.h"

namespace lasp::worker {

struct RankMetricsOptions {
  // A job of more ranks shows one series an agent instead of one a rank.
  int max_ranks_of_a_job = 256;
  // How long those of an ended rank stay.
  absl::Duration retention = absl::Minutes(5);
};

// A rank that has been started.
struct RankStart {
  lasp::v1::Fence fence;
  int slot = 0;
  int world_size = 1;
  // Empty on a CPU.
  std::string gpu_uuid = {};
  double model_flops_per_token = 0;
  double peak_flops_per_second = 0;
  int64_t memory_limit_bytes = 0;
};

// Series carry training_job (the resource name), generation and rank; those of an ended rank stay
// for `retention`, long enough for a last scrape, then go, scraped or not, so that their number
// stays bounded. Jobs beyond max_ranks_of_a_job have no label rank: this agent's ranks of them are
// added up.
// Thread-safe.
class RankMetrics : public prometheus::Collectable {
 public:
  // `clock` outlives it.
  RankMetrics(std::string worker_id, const Clock* clock, const RankMetricsOptions& options = {});

  void Started(const RankStart& start);
  void Stepped(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step);
  void Checkpointed(const lasp::v1::Fence& fence,
                    const lasp::internal::v1::CheckpointTotals& totals);
  // Whether it was alive until now.
  bool Ended(const lasp::v1::Fence& fence);
  int LiveRanks() const;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  friend class RankMetricsTestPeer;

  struct Entry {
    RankSeries series;
    absl::Duration remove_at = absl::InfiniteDuration();
    // A later job of the same name has the same labels, and shows its series instead.
    bool replaced = false;
  };

  // The job's uid, generation and rank.
  using Key = std::tuple<std::string, int64_t, int32_t>;

  static Key KeyOf(const lasp::v1::Fence& fence);
  double UnixSeconds() const;
  void RemoveOld() const REQUIRES_LOCK(mutex_);

  const std::string worker_id_;
  const Clock* const clock_;
  const RankMetricsOptions options_;
  mutable Mutex mutex_;
  mutable std::map<Key, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
