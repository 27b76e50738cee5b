#include "worker/telemetry/rank_metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

using lasp::internal::v1::RankStep;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Steps from a small model on a CPU to a long sequence on many GPUs.
const std::vector<double>& StepBounds() {
  static const auto* const bounds = new std::vector<double>(GeometricBounds(0.01, 1.5, 100));
  return *bounds;
}

// Coarser: four phases a rank.
const std::vector<double>& PhaseBounds() {
  static const auto* const bounds = new std::vector<double>(GeometricBounds(0.001, 3, 50));
  return *bounds;
}

constexpr const char* kPhases[] = {"data", "forward", "backward", "optimizer"};

}  // namespace

RankMetrics::Series::Series() : step_seconds(&StepBounds()) {
  for (const char* phase : kPhases) {
    phase_seconds.emplace(phase, &PhaseBounds());
  }
}

RankMetrics::RankMetrics(std::string worker_id, const Clock* clock, absl::Duration retention)
    : worker_id_(std::move(worker_id)), clock_(clock), retention_(retention) {}

RankMetrics::Key RankMetrics::KeyOf(const lasp::v1::Fence& fence) {
  return {fence.uid(), fence.generation(), fence.rank()};
}

void RankMetrics::RemoveOld() const {
  const absl::Duration now = clock_->Monotonic();
  std::erase_if(series_, [now](const auto& entry) { return entry.second->remove_at <= now; });
}

void RankMetrics::Started(const lasp::v1::Fence& fence, int slot) {
  auto series = std::make_unique<Series>();
  series->labels = {{"generation", absl::StrCat(fence.generation())},
                    {"rank", absl::StrCat(fence.rank())},
                    {"training_job", fence.training_job()}};
  series->slot = slot;
  MutexLock lock(&mutex_);
  RemoveOld();
  for (const auto& [key, older] : series_) {
    older->replaced |= older->labels == series->labels;
  }
  series_[KeyOf(fence)] = std::move(series);
}

void RankMetrics::Stepped(const lasp::v1::Fence& fence, const RankStep& step) {
  MutexLock lock(&mutex_);
  const auto found = series_.find(KeyOf(fence));
  if (found == series_.end()) {
    return;
  }
  Series& series = *found->second;
  ++series.steps;
  series.last = step;
  series.last_step_time = absl::ToDoubleSeconds(clock_->Now() - absl::UnixEpoch());
  if (step.has_metrics()) {
    const bool had_eval_loss = series.metrics.has_eval_loss();
    const double eval_loss = series.metrics.eval_loss();
    series.metrics = step.metrics();
    series.has_metrics = true;
    // Steps between two evaluations do not make the last one unknown.
    if (had_eval_loss && !series.metrics.has_eval_loss()) {
      series.metrics.set_eval_loss(eval_loss);
    }
  }
  series.last.clear_metrics();
  series.step_seconds.Observe(step.step_seconds());
  series.phase_seconds.at("data").Observe(step.data_seconds());
  series.phase_seconds.at("forward").Observe(step.forward_seconds());
  series.phase_seconds.at("backward").Observe(step.backward_seconds());
  series.phase_seconds.at("optimizer").Observe(step.optimizer_seconds());
}

bool RankMetrics::Ended(const lasp::v1::Fence& fence) {
  MutexLock lock(&mutex_);
  const auto found = series_.find(KeyOf(fence));
  if (found == series_.end() || found->second->remove_at != absl::InfiniteDuration()) {
    return false;
  }
  found->second->remove_at = clock_->Monotonic() + retention_;
  return true;
}

int RankMetrics::LiveRanks() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(std::count_if(series_.begin(), series_.end(), [](const auto& entry) {
    return entry.second->remove_at == absl::InfiniteDuration();
  }));
}

std::vector<MetricFamily> RankMetrics::Collect() const {
  MetricFamily info =
      NewFamily("lasp_worker_info", "A rank of this agent; always 1", MetricType::Gauge);
  MetricFamily steps = NewFamily("lasp_worker_steps_total", "Steps finished", MetricType::Counter);
  MetricFamily tokens =
      NewFamily("lasp_worker_tokens_total", "Tokens this rank has trained on", MetricType::Counter);
  MetricFamily skipped =
      NewFamily("lasp_worker_skipped_steps_total",
                "Steps without an update, since the loss or the gradient was not finite",
                MetricType::Counter);
  MetricFamily step_seconds =
      NewFamily("lasp_worker_step_seconds", "Time of a step", MetricType::Histogram);
  MetricFamily phase_seconds =
      NewFamily("lasp_worker_phase_seconds", "Time of a phase in a step", MetricType::Histogram);
  MetricFamily sp_bytes =
      NewFamily("lasp_worker_sp_sent_bytes_total",
                "Bytes this rank has sent to its sequence-parallel group", MetricType::Counter);
  MetricFamily dp_bytes =
      NewFamily("lasp_worker_dp_sent_bytes_total", "Bytes this rank has sent to reduce gradients",
                MetricType::Counter);
  MetricFamily sp_wait = NewFamily(
      "lasp_worker_sp_wait_seconds_total",
      "Time this rank has waited for states of its sequence-parallel group", MetricType::Counter);
  MetricFamily dp_wait =
      NewFamily("lasp_worker_gradient_sync_wait_seconds_total",
                "Time this rank has waited for reduced gradients", MetricType::Counter);
  MetricFamily memory = NewFamily("lasp_worker_memory_bytes",
                                  "Device memory this rank has planned, by use", MetricType::Gauge);
  MetricFamily current =
      NewFamily("lasp_worker_current_step", "The last finished step", MetricType::Gauge);
  MetricFamily last_time = NewFamily("lasp_worker_last_step_timestamp_seconds",
                                     "When the last step ended, Unix time", MetricType::Gauge);
  MetricFamily loss = NewFamily("lasp_worker_loss", "Training loss of the last step, nats a token",
                                MetricType::Gauge);
  MetricFamily eval_loss =
      NewFamily("lasp_worker_eval_loss", "Held-out loss of the last evaluation, nats a token",
                MetricType::Gauge);
  MetricFamily gradient = NewFamily(
      "lasp_worker_gradient_norm", "Norm of the last gradient, before clipping", MetricType::Gauge);
  MetricFamily rate =
      NewFamily("lasp_worker_learning_rate", "Learning rate of the last step", MetricType::Gauge);
  MetricFamily throughput =
      NewFamily("lasp_worker_tokens_per_second",
                "Tokens a second of the last step, over all ranks of the job", MetricType::Gauge);
  MutexLock lock(&mutex_);
  RemoveOld();
  for (const auto& [key, entry] : series_) {
    const Series& series = *entry;
    if (series.replaced) {
      continue;
    }
    const MetricLabels& labels = series.labels;
    MetricLabels info_labels = labels;
    info_labels.emplace_back("slot", absl::StrCat(series.slot));
    info_labels.emplace_back("worker", worker_id_);
    AddValue(info_labels, 1, &info);
    AddValue(labels, static_cast<double>(series.steps), &steps);
    AddValue(labels, static_cast<double>(series.last.tokens_total()), &tokens);
    AddValue(labels, static_cast<double>(series.last.skipped_steps_total()), &skipped);
    AddHistogram(labels, series.step_seconds.Histogram(), &step_seconds);
    for (const auto& [phase, counter] : series.phase_seconds) {
      MetricLabels phase_labels = labels;
      phase_labels.emplace_back("phase", phase);
      AddHistogram(phase_labels, counter.Histogram(), &phase_seconds);
    }
    AddValue(labels, static_cast<double>(series.last.sp_sent_bytes_total()), &sp_bytes);
    AddValue(labels, static_cast<double>(series.last.dp_sent_bytes_total()), &dp_bytes);
    AddValue(labels, series.last.sp_wait_seconds_total(), &sp_wait);
    AddValue(labels, series.last.gradient_sync_wait_seconds_total(), &dp_wait);
    for (const auto& [use, bytes] : series.last.memory_bytes()) {
      MetricLabels use_labels = labels;
      use_labels.emplace_back("use", use);
      AddValue(use_labels, static_cast<double>(bytes), &memory);
    }
    AddValue(labels, static_cast<double>(series.last.step()), &current);
    if (series.steps > 0) {
      AddValue(labels, series.last_step_time, &last_time);
    }
    if (series.has_metrics) {
      AddValue(labels, series.metrics.loss(), &loss);
      AddValue(labels, series.metrics.gradient_norm(), &gradient);
      AddValue(labels, series.metrics.learning_rate(), &rate);
      AddValue(labels, series.metrics.tokens_per_second(), &throughput);
      if (series.metrics.has_eval_loss()) {
        AddValue(labels, series.metrics.eval_loss(), &eval_loss);
      }
    }
  }
  std::vector<MetricFamily> families;
  for (MetricFamily* family : {&info, &steps, &tokens, &skipped, &step_seconds, &phase_seconds,
                               &sp_bytes, &dp_bytes, &sp_wait, &dp_wait, &memory, &current,
                               &last_time, &loss, &eval_loss, &gradient, &rate, &throughput}) {
    if (!family->metric.empty()) {
      families.push_back(std::move(*family));
    }
  }
  return families;
}

}  // namespace lasp::worker
