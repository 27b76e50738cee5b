#include "worker/telemetry/rank_metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::worker {

RankMetrics::RankMetrics(std::string worker_id, const Clock* clock,
                         const RankMetricsOptions& options)
    : worker_id_(std::move(worker_id)), clock_(clock), options_(options) {}

RankMetrics::Key RankMetrics::KeyOf(const lasp::v1::Fence& fence) {
  return {fence.uid(), fence.generation(), fence.rank()};
}

double RankMetrics::UnixSeconds() const {
  return absl::ToDoubleSeconds(clock_->Now() - absl::UnixEpoch());
}

void RankMetrics::RemoveOld() const {
  const absl::Duration now = clock_->Monotonic();
  std::erase_if(entries_, [now](const auto& entry) { return entry.second.remove_at <= now; });
}

void RankMetrics::Started(const RankStart& start) {
  const bool shown_alone = start.world_size <= options_.max_ranks_of_a_job;
  MetricLabels labels = {{"generation", absl::StrCat(start.fence.generation())}};
  MetricLabels info;
  if (shown_alone) {
    labels.emplace_back("rank", absl::StrCat(start.fence.rank()));
    info = {{"gpu_uuid", start.gpu_uuid}, {"slot", absl::StrCat(start.slot)}};
  }
  labels.emplace_back("training_job", start.fence.training_job());
  info.emplace_back("worker", worker_id_);
  RankSeries series(labels, std::move(info),
                    {.time = UnixSeconds(),
                     .model_flops_per_token = start.model_flops_per_token,
                     .peak_flops_per_second = start.peak_flops_per_second,
                     .memory_limit_bytes = start.memory_limit_bytes});
  MutexLock lock(&mutex_);
  RemoveOld();
  for (auto& [key, older] : entries_) {
    older.replaced |=
        older.series.labels() == labels && (shown_alone || std::get<0>(key) != start.fence.uid());
  }
  entries_.insert_or_assign(KeyOf(start.fence), Entry{.series = std::move(series)});
}

void RankMetrics::Stepped(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(KeyOf(fence));
  if (found != entries_.end()) {
    found->second.series.Stepped(step, UnixSeconds());
  }
}

void RankMetrics::Checkpointed(const lasp::v1::Fence& fence,
                               const lasp::internal::v1::CheckpointTotals& totals) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(KeyOf(fence));
  if (found != entries_.end()) {
    found->second.series.Checkpointed(totals, UnixSeconds());
  }
}

bool RankMetrics::Ended(const lasp::v1::Fence& fence) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(KeyOf(fence));
  if (found == entries_.end() || found->second.remove_at != absl::InfiniteDuration()) {
    return false;
  }
  found->second.series.Ended();
  found->second.remove_at = clock_->Monotonic() + options_.retention;
  return true;
}

int RankMetrics::LiveRanks() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) {
    return entry.second.remove_at == absl::InfiniteDuration();
  }));
}

std::vector<prometheus::MetricFamily> RankMetrics::Collect() const {
  MutexLock lock(&mutex_);
  RemoveOld();
  // Those of equal labels are ranks of one large job.
  std::map<MetricLabels, RankSeries> by_labels;
  for (const auto& [key, entry] : entries_) {
    if (entry.replaced) {
      continue;
    }
    const auto [shown, first] = by_labels.try_emplace(entry.series.labels(), entry.series);
    if (!first) {
      shown->second.Add(entry.series);
    }
  }
  std::vector<const RankSeries*> series;
  series.reserve(by_labels.size());
  for (const auto& [labels, shown] : by_labels) {
    series.push_back(&shown);
  }
  return RankSeries::Expose(series);
}

}  // namespace lasp::worker
