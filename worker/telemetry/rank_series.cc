#include "worker/telemetry/rank_series.h"

#include <algorithm>
#include <optional>
#include <utility>

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

// Coarse: a rank has seven phases, and what is asked for most is their mean.
const std::vector<double>& PhaseBounds() {
  static const auto* const bounds = new std::vector<double>(GeometricBounds(0.001, 10, 100));
  return *bounds;
}

constexpr const char* kPhases[] = {"data",          "forward",   "backward", "sp_wait",
                                   "gradient_sync", "optimizer", "other"};

std::optional<double> Known(double value) {
  return value > 0 ? std::optional<double>(value) : std::nullopt;
}

std::optional<double> Known(int64_t value) { return Known(static_cast<double>(value)); }

std::optional<double> Count(int64_t value) { return static_cast<double>(value); }

}  // namespace

// A family with one series a rank, absent where it has no value.
struct RankSeries::Value {
  const char* name;
  const char* help;
  MetricType type;
  std::optional<double> (*of)(const RankSeries&);

  static std::optional<double> OfRankZero(const RankSeries& series, double value) {
    return series.has_metrics_ ? std::optional<double>(value) : std::nullopt;
  }
};

const std::vector<RankSeries::Value>& RankSeries::Values() {
  constexpr MetricType kCounter = MetricType::Counter;
  constexpr MetricType kGauge = MetricType::Gauge;
  using Series = const RankSeries&;
  using Is = std::optional<double>;
  static const auto* const values = new std::vector<Value>{
      {"lasp_worker_running", "Ranks whose process lives: 1, or 0 after its end", kGauge,
       [](Series s) { return Count(s.running_); }},
      {"lasp_worker_start_time_seconds", "When the rank was started, Unix time", kGauge,
       [](Series s) -> Is { return s.start_.time; }},
      {"lasp_worker_steps_total", "Steps finished", kCounter,
       [](Series s) { return Count(s.steps_); }},
      {"lasp_worker_tokens_total", "Tokens this rank has trained on", kCounter,
       [](Series s) { return Count(s.last_.tokens_total()); }},
      {"lasp_worker_model_flops_total",
       "Floating-point operations that the model asks for of these tokens, forward and backward",
       kCounter, [](Series s) -> Is { return s.model_flops_; }},
      {"lasp_worker_peak_flops_per_second",
       "What the rank's GPU could do at most, dense bf16; absent where that is not known", kGauge,
       [](Series s) -> Is { return Known(s.start_.peak_flops_per_second); }},
      {"lasp_worker_sp_sent_bytes_total", "Bytes this rank has sent to its sequence-parallel group",
       kCounter, [](Series s) { return Count(s.last_.sp_sent_bytes_total()); }},
      {"lasp_worker_dp_sent_bytes_total", "Bytes this rank has sent to reduce gradients", kCounter,
       [](Series s) { return Count(s.last_.dp_sent_bytes_total()); }},
      {"lasp_worker_sp_wait_seconds_total",
       "Time this rank has waited for states of its sequence-parallel group", kCounter,
       [](Series s) -> Is { return s.last_.sp_wait_seconds_total(); }},
      {"lasp_worker_gradient_sync_wait_seconds_total",
       "Time this rank has waited for reduced gradients", kCounter,
       [](Series s) -> Is { return s.last_.gradient_sync_wait_seconds_total(); }},
      {"lasp_worker_memory_limit_bytes",
       "Memory of the rank's GPU, or a CPU slot's share of its host's", kGauge,
       [](Series s) -> Is { return Known(s.start_.memory_limit_bytes); }},
      {"lasp_worker_peak_resident_memory_bytes",
       "The most host memory the rank's process has held at a time", kGauge,
       [](Series s) -> Is { return Known(s.last_.peak_resident_memory_bytes()); }},
      {"lasp_worker_current_step", "The last finished step", kGauge,
       [](Series s) { return Count(s.last_.step()); }},
      {"lasp_worker_last_step_timestamp_seconds", "When the last step ended, Unix time", kGauge,
       [](Series s) -> Is { return Known(s.last_step_time_); }},
      {"lasp_worker_checkpoints_total", "Parts of checkpoints this rank has written", kCounter,
       [](Series s) { return Count(s.checkpoints_.written()); }},
      {"lasp_worker_checkpoint_failures_total", "Parts of checkpoints it could not write", kCounter,
       [](Series s) { return Count(s.checkpoints_.failed()); }},
      {"lasp_worker_checkpoint_bytes_total", "Bytes of the parts it has written", kCounter,
       [](Series s) { return Count(s.checkpoints_.bytes()); }},
      {"lasp_worker_checkpoint_stall_seconds_total",
       "Time for which its training stood still to copy them", kCounter,
       [](Series s) -> Is { return s.checkpoints_.stall_seconds(); }},
      {"lasp_worker_checkpoint_write_seconds_total",
       "Time from a copy's beginning to its end on the disk, beside the training", kCounter,
       [](Series s) -> Is { return s.checkpoints_.write_seconds(); }},
      {"lasp_worker_last_checkpoint_timestamp_seconds",
       "When it had written its part of the last one, Unix time", kGauge,
       [](Series s) -> Is { return Known(s.last_checkpoint_time_); }},
      {"lasp_worker_loss", "Training loss of the last step, nats a token; of rank 0", kGauge,
       [](Series s) { return Value::OfRankZero(s, s.metrics_.loss()); }},
      {"lasp_worker_eval_loss", "Held-out loss of the last evaluation, nats a token; of rank 0",
       kGauge,
       [](Series s) -> Is {
         return s.metrics_.has_eval_loss() ? Is(s.metrics_.eval_loss()) : std::nullopt;
       }},
      {"lasp_worker_gradient_norm", "Norm of the last gradient, before clipping; of rank 0", kGauge,
       [](Series s) { return Value::OfRankZero(s, s.metrics_.gradient_norm()); }},
      {"lasp_worker_learning_rate", "Learning rate of the last step; of rank 0", kGauge,
       [](Series s) { return Value::OfRankZero(s, s.metrics_.learning_rate()); }},
      {"lasp_worker_tokens_per_second",
       "Tokens a second of the last step, over all ranks of the job; of rank 0", kGauge,
       [](Series s) { return Value::OfRankZero(s, s.metrics_.tokens_per_second()); }},
  };
  return *values;
}

RankSeries::RankSeries(MetricLabels labels, MetricLabels info, const Start& start)
    : labels_(std::move(labels)),
      info_(std::move(info)),
      start_(start),
      step_seconds_(&StepBounds()) {
  for (const char* phase : kPhases) {
    phase_seconds_.emplace(phase, &PhaseBounds());
  }
}

void RankSeries::ObservePhases(const RankStep& step) {
  // Waits come as totals; a report that was lost is counted with the next.
  const double sp_wait =
      std::max(0.0, step.sp_wait_seconds_total() - last_.sp_wait_seconds_total());
  const double gradient_sync = std::max(
      0.0, step.gradient_sync_wait_seconds_total() - last_.gradient_sync_wait_seconds_total());
  double other = step.step_seconds();
  const auto observe = [this, &other](const char* phase, double seconds) {
    phase_seconds_.at(phase).Observe(seconds);
    other -= seconds;
  };
  observe("data", step.data_seconds());
  observe("forward", step.forward_seconds());
  observe("backward", step.backward_seconds());
  observe("sp_wait", sp_wait);
  observe("gradient_sync", gradient_sync);
  observe("optimizer", step.optimizer_seconds());
  observe("other", std::max(0.0, other));
}

void RankSeries::Stepped(const RankStep& step, double time) {
  ++steps_;
  step_seconds_.Observe(step.step_seconds());
  ObservePhases(step);
  if (step.has_metrics()) {
    const bool had_eval_loss = metrics_.has_eval_loss();
    const double eval_loss = metrics_.eval_loss();
    metrics_ = step.metrics();
    has_metrics_ = true;
    // Steps between two evaluations do not make the last one unknown.
    if (had_eval_loss && !metrics_.has_eval_loss()) {
      metrics_.set_eval_loss(eval_loss);
    }
  }
  last_ = step;
  last_.clear_metrics();
  last_step_time_ = time;
  model_flops_ = start_.model_flops_per_token * static_cast<double>(step.tokens_total());
}

void RankSeries::Checkpointed(const lasp::internal::v1::CheckpointTotals& totals, double time) {
  if (totals.written() > checkpoints_.written()) {
    last_checkpoint_time_ = time;
  }
  checkpoints_ = totals;
}

void RankSeries::Add(const RankSeries& other) {
  const RankStep& theirs = other.last_;
  last_.set_step(std::min(last_.step(), theirs.step()));
  last_.set_tokens_total(last_.tokens_total() + theirs.tokens_total());
  last_.set_sp_sent_bytes_total(last_.sp_sent_bytes_total() + theirs.sp_sent_bytes_total());
  last_.set_dp_sent_bytes_total(last_.dp_sent_bytes_total() + theirs.dp_sent_bytes_total());
  last_.set_sp_wait_seconds_total(last_.sp_wait_seconds_total() + theirs.sp_wait_seconds_total());
  last_.set_gradient_sync_wait_seconds_total(last_.gradient_sync_wait_seconds_total() +
                                             theirs.gradient_sync_wait_seconds_total());
  // The update is left out on all ranks alike.
  last_.set_skipped_steps_total(
      std::max(last_.skipped_steps_total(), theirs.skipped_steps_total()));
  last_.set_peak_resident_memory_bytes(last_.peak_resident_memory_bytes() +
                                       theirs.peak_resident_memory_bytes());
  for (const auto& [use, bytes] : theirs.memory_bytes()) {
    (*last_.mutable_memory_bytes())[use] += bytes;
  }
  running_ += other.running_;
  steps_ += other.steps_;
  model_flops_ += other.model_flops_;
  start_.time = std::max(start_.time, other.start_.time);
  start_.peak_flops_per_second += other.start_.peak_flops_per_second;
  start_.memory_limit_bytes += other.start_.memory_limit_bytes;
  last_step_time_ = std::max(last_step_time_, other.last_step_time_);
  last_checkpoint_time_ = std::max(last_checkpoint_time_, other.last_checkpoint_time_);
  const lasp::internal::v1::CheckpointTotals& saved = other.checkpoints_;
  checkpoints_.set_written(checkpoints_.written() + saved.written());
  checkpoints_.set_failed(checkpoints_.failed() + saved.failed());
  checkpoints_.set_bytes(checkpoints_.bytes() + saved.bytes());
  checkpoints_.set_stall_seconds(checkpoints_.stall_seconds() + saved.stall_seconds());
  checkpoints_.set_write_seconds(checkpoints_.write_seconds() + saved.write_seconds());
  if (other.has_metrics_) {
    metrics_ = other.metrics_;
    has_metrics_ = true;
  }
  step_seconds_.Add(other.step_seconds_);
  for (auto& [phase, counter] : phase_seconds_) {
    counter.Add(other.phase_seconds_.at(phase));
  }
}

std::vector<MetricFamily> RankSeries::Expose(const std::vector<const RankSeries*>& series) {
  std::vector<MetricFamily> families;
  const auto begin = [&families](const char* name, const char* help, MetricType type) {
    families.push_back(NewFamily(name, help, type));
    return &families.back();
  };
  MetricFamily* family = begin("lasp_worker_info",
                               "A rank of this agent, or its ranks of a job "
                               "too large to show each; always 1",
                               MetricType::Gauge);
  for (const RankSeries* one : series) {
    MetricLabels labels = one->labels_;
    labels.insert(labels.end(), one->info_.begin(), one->info_.end());
    AddValue(labels, 1, family);
  }
  for (const Value& value : Values()) {
    family = begin(value.name, value.help, value.type);
    for (const RankSeries* one : series) {
      if (const std::optional<double> is = value.of(*one); is.has_value()) {
        AddValue(one->labels_, *is, family);
      }
    }
  }
  family = begin("lasp_worker_skipped_steps_total",
                 "Steps without an update; nonfinite: the loss or the gradient was not finite",
                 MetricType::Counter);
  for (const RankSeries* one : series) {
    MetricLabels labels = one->labels_;
    labels.emplace_back("reason", "nonfinite");
    AddValue(labels, static_cast<double>(one->last_.skipped_steps_total()), family);
  }
  family = begin("lasp_worker_step_seconds", "Time of a step", MetricType::Histogram);
  for (const RankSeries* one : series) {
    AddHistogram(one->labels_, one->step_seconds_.Histogram(), family);
  }
  family = begin("lasp_worker_phase_seconds",
                 "Time of a phase in a step; the phases do not overlap and add up to the step",
                 MetricType::Histogram);
  for (const RankSeries* one : series) {
    for (const auto& [phase, counter] : one->phase_seconds_) {
      MetricLabels labels = one->labels_;
      labels.emplace_back("phase", phase);
      AddHistogram(labels, counter.Histogram(), family);
    }
  }
  family = begin("lasp_worker_memory_bytes",
                 "Device memory this rank has taken, by use; all of it before the first step",
                 MetricType::Gauge);
  for (const RankSeries* one : series) {
    for (const auto& [use, bytes] : one->last_.memory_bytes()) {
      MetricLabels labels = one->labels_;
      labels.emplace_back("use", use);
      AddValue(labels, static_cast<double>(bytes), family);
    }
  }
  std::erase_if(families, [](const MetricFamily& one) { return one.metric.empty(); });
  return families;
}

}  // namespace lasp::worker
