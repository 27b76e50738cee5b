// What one rank, or several of a job together, show to Prometheus.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lasp/internal/v1/rank_channel.pb.h"
#include "worker/telemetry/metric_families.h"

namespace lasp::worker {

// Not thread-safe.
class RankSeries {
 public:
  struct Start {
    // Seconds since the Unix epoch.
    double time = 0;
    // Of a training token; 0 where unknown.
    double model_flops_per_token = 0;
    // Of the rank's GPU; 0 where there is none or it is unknown.
    double peak_flops_per_second = 0;
    // The memory of its GPU, or its share of the host's.
    int64_t memory_limit_bytes = 0;
  };

  // `labels` of every series, `info` of lasp_worker_info besides.
  RankSeries(MetricLabels labels, MetricLabels info, const Start& start);

  // One step, ended at `time`.
  void Stepped(const lasp::internal::v1::RankStep& step, double time);

  // Known at `time`.
  void Checkpointed(const lasp::internal::v1::CheckpointTotals& totals, double time);

  void Ended() { running_ = 0; }

  // Counts another rank of the same job in: totals, histograms and memory add up, the slowest
  // rank's step is the current one, and the latest time stands.
  void Add(const RankSeries& other);

  const MetricLabels& labels() const { return labels_; }

  // Families without a series are left out.
  static std::vector<prometheus::MetricFamily> Expose(const std::vector<const RankSeries*>& series);

 private:
  struct Value;
  static const std::vector<Value>& Values();

  void ObservePhases(const lasp::internal::v1::RankStep& step);

  MetricLabels labels_;
  MetricLabels info_;
  Start start_;
  int running_ = 1;
  int64_t steps_ = 0;
  // Totals of the last report, or sums of several ranks'.
  lasp::internal::v1::RankStep last_;
  // Of the last step that carried them; rank 0 only.
  lasp::v1::StepMetrics metrics_;
  bool has_metrics_ = false;
  double last_step_time_ = 0;
  lasp::internal::v1::CheckpointTotals checkpoints_;
  double last_checkpoint_time_ = 0;
  double model_flops_ = 0;
  BucketCounter step_seconds_;
  std::map<std::string, BucketCounter> phase_seconds_;
};

}  // namespace lasp::worker
