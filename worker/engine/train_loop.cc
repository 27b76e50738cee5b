#include "worker/engine/train_loop.h"

#include <sys/resource.h>

#include <cmath>
#include <utility>

#include "google/protobuf/util/time_util.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/engine/exit_code.h"

namespace lasp::worker {
namespace {

// More than are made between two reports of rank 0, unless the model is tiny.
constexpr size_t kRecentSteps = 256;

int64_t PeakResidentBytes() {
  constexpr int64_t kKibibyte = 1024;
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * kKibibyte : 0;
}

// Of all that is not sequence parallelism.
int64_t DataParallelBytes(const Trainer::Options& options) {
  int64_t bytes = 0;
  for (const Communicator* const group : {options.world, options.shards, options.replicas}) {
    bytes += group == nullptr ? 0 : group->counters().sent_bytes;
  }
  return bytes;
}

}  // namespace

TrainLoop::TrainLoop(const Trainer::Options& options, const Parts& parts)
    : options_(options),
      parts_(parts),
      trainer_(*parts.trainer),
      checkpoints_(parts.checkpoints),
      observer_(*parts.observer),
      bytes_before_(DataParallelBytes(options)),
      last_step_(parts.trainer->restored().step()) {}

void TrainLoop::EnterSection(ProgressClock::Section section) {
  if (parts_.progress != nullptr) {
    parts_.progress->Enter(section);
  }
}

void TrainLoop::TellFinished(const StepResult& result) {
  if (parts_.progress != nullptr) {
    parts_.progress->FinishStep(result.seconds);
  }
  if (parts_.load != nullptr) {
    double busy = 0;
    for (const Phase phase : {Phase::kData, Phase::kForward, Phase::kBackward, Phase::kOptimizer}) {
      busy += result.phases[phase];
    }
    parts_.load->Add(busy);
  }
}

absl::Status TrainLoop::JudgeStep(int64_t step, const StepResult& result) const {
  using lasp::v1::RecoverySpec;
  const bool finite = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  if (finite && !result.outlier) {
    return absl::OkStatus();
  }
  if (options_.grid.rank() == 0) {
    LASP_LOG(kWarning, finite ? "the loss is an outlier" : "the loss or the gradient is not finite",
             {{"step", step},
              {"loss", result.loss},
              {"gradient_norm", result.gradient_norm},
              {"skipped", result.skipped}});
  }
  const RecoverySpec& recovery = options_.spec.recovery();
  const RecoverySpec::BadStep policy = finite ? recovery.outlier() : recovery.non_finite();
  if (policy != RecoverySpec::BAD_STEP_ROLL_BACK && policy != RecoverySpec::BAD_STEP_HALT) {
    return absl::OkStatus();
  }
  return BadStepError({.step = step,
                       .finite = finite,
                       .loss = result.loss,
                       .gradient_norm = result.gradient_norm,
                       .roll_back = policy == RecoverySpec::BAD_STEP_ROLL_BACK});
}

absl::StatusOr<TrainEnd> TrainLoop::Run() {
  LASP_RETURN_IF_ERROR(observer_.OnPhase(lasp::v1::RankStatus::PHASE_TRAINING));
  EnterSection(ProgressClock::Section::kTraining);
  const int64_t last = options_.spec.max_steps();
  for (int64_t step = trainer_.first_step(); step <= last; ++step) {
    LASP_ASSIGN_OR_RETURN(const StepResult result, trainer_.Step(step, checkpoints_));
    LASP_RETURN_IF_ERROR(JudgeStep(step, result));
    last_step_ = step;
    TellFinished(result);
    sp_wait_seconds_ += result.phases[Phase::kSpWait];
    gradient_sync_wait_seconds_ += result.phases[Phase::kGradientSync];
    if (checkpoints_ != nullptr) {
      checkpoints_->AddStall(result.phases[Phase::kCheckpoint]);
    }
    Remember(step, result);
    EvaluationResult evaluation;
    if (!result.drain) {
      LASP_RETURN_IF_ERROR(BetweenSteps(step, result, &evaluation));
    }
    if (evaluation.loss.has_value()) {
      recent_.back().set_eval_loss(*evaluation.loss);
    }
    const lasp::internal::v1::RankStep report = Report(step, result);
    if (report.has_metrics()) {
      Log(report.metrics());
    }
    LASP_RETURN_IF_ERROR(observer_.OnStep(report));
    LASP_RETURN_IF_ERROR(TellCheckpoints());
    LASP_RETURN_IF_ERROR(trainer_.status());
    if ((result.drain || evaluation.drain) && step < last) {
      LASP_RETURN_IF_ERROR(SaveLast());
      return TrainEnd{.step = step, .drained = true};
    }
  }
  LASP_RETURN_IF_ERROR(SaveLast());
  return TrainEnd{.step = last_step_, .drained = false};
}

absl::Status TrainLoop::BetweenSteps(int64_t step, const StepResult& result,
                                     EvaluationResult* evaluation) {
  if (checkpoints_ != nullptr) {
    if (result.checkpoint_due && result.checkpoint_busy && options_.grid.rank() == 0) {
      LASP_LOG(kWarning, "no checkpoint: the one before it is still being written",
               {{"step", step}});
    }
    // That of the last step is waited for.
    if (result.checkpoint_due && !result.checkpoint_busy && step < options_.spec.max_steps()) {
      checkpoints_->Save(trainer_.StateAfter(step));
    }
  }
  const int64_t interval = options_.spec.eval_interval_steps();
  if (interval > 0 && step % interval == 0 && options_.eval_data != nullptr) {
    LASP_RETURN_IF_ERROR(observer_.OnPhase(lasp::v1::RankStatus::PHASE_EVALUATING));
    EnterSection(ProgressClock::Section::kEvaluating);
    LASP_ASSIGN_OR_RETURN(*evaluation, trainer_.Evaluate());
    EnterSection(ProgressClock::Section::kTraining);
    LASP_RETURN_IF_ERROR(observer_.OnPhase(lasp::v1::RankStatus::PHASE_TRAINING));
  }
  return absl::OkStatus();
}

absl::Status TrainLoop::SaveLast() {
  EnterSection(ProgressClock::Section::kUntimed);
  if (checkpoints_ == nullptr) {
    return absl::OkStatus();
  }
  if (const absl::Status saved = checkpoints_->SaveLast(trainer_.StateAfter(last_step_));
      !saved.ok()) {
    return SuspectHostError(saved);
  }
  return TellCheckpoints();
}

absl::Status TrainLoop::TellCheckpoints() {
  if (checkpoints_ == nullptr) {
    return absl::OkStatus();
  }
  const lasp::internal::v1::CheckpointTotals totals = checkpoints_->totals();
  std::string text = totals.SerializeAsString();
  if (text == told_totals_) {
    return absl::OkStatus();
  }
  told_totals_ = std::move(text);
  return observer_.OnCheckpoints(totals);
}

void TrainLoop::Log(const lasp::v1::StepMetrics& metrics) {
  const absl::Duration now = SystemClock().Monotonic();
  if (now < next_log_ && metrics.step() < options_.spec.max_steps()) {
    return;
  }
  next_log_ = now + absl::Seconds(1);
  LASP_LOG(kInfo, "step",
           {{"step", metrics.step()},
            {"loss", metrics.loss()},
            {"gradient_norm", metrics.gradient_norm()},
            {"learning_rate", metrics.learning_rate()},
            {"tokens_per_second", metrics.tokens_per_second()}});
}

void TrainLoop::Remember(int64_t step, const StepResult& result) {
  recent_.push_back(MetricsOf(step, result));
  if (recent_.size() > kRecentSteps) {
    recent_.pop_front();
  }
}

lasp::internal::v1::RankStep TrainLoop::Report(int64_t step, const StepResult& result) const {
  const int64_t tokens_a_step =
      options_.spec.global_batch_size() * options_.spec.data().sequence_length();
  const CommunicatorCounters sp = options_.sp->counters();
  lasp::internal::v1::RankStep report;
  report.set_step(step);
  report.set_tokens_total((step - trainer_.restored().step()) * tokens_a_step /
                          options_.grid.world_size());
  const int64_t wrapped = options_.wrap == nullptr ? 0 : options_.wrap->counters().sent_bytes;
  report.set_sp_sent_bytes_total(sp.sent_bytes + wrapped);
  report.set_dp_sent_bytes_total(DataParallelBytes(options_) - bytes_before_);
  report.set_sp_wait_seconds_total(sp_wait_seconds_);
  report.set_gradient_sync_wait_seconds_total(gradient_sync_wait_seconds_);
  report.set_step_seconds(result.seconds);
  report.set_data_seconds(result.phases[Phase::kData]);
  report.set_forward_seconds(result.phases[Phase::kForward]);
  report.set_backward_seconds(result.phases[Phase::kBackward]);
  report.set_optimizer_seconds(result.phases[Phase::kOptimizer]);
  report.set_skipped_steps_total(trainer_.skipped_total() - trainer_.restored().skipped_count());
  report.set_peak_resident_memory_bytes(PeakResidentBytes());
  for (const MemoryUse use : kMemoryUses) {
    (*report.mutable_memory_bytes())[NameOf(use)] = trainer_.memory()[use];
  }
  if (options_.grid.rank() == 0) {
    *report.mutable_metrics() = recent_.back();
  }
  return report;
}

void TrainLoop::AddRecentSteps(lasp::v1::StateLeft* left) const {
  for (const lasp::v1::StepMetrics& step : recent_) {
    if (step.step() <= left->state().step()) {
      *left->add_recent_steps() = step;
    }
  }
}

lasp::v1::StepMetrics TrainLoop::MetricsOf(int64_t step, const StepResult& result) const {
  const int64_t tokens_a_step =
      options_.spec.global_batch_size() * options_.spec.data().sequence_length();
  lasp::v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_loss(result.loss);
  metrics.set_gradient_norm(result.gradient_norm);
  metrics.set_learning_rate(result.learning_rate);
  metrics.set_tokens_per_second(static_cast<double>(tokens_a_step) / result.seconds);
  metrics.set_step_seconds(result.seconds);
  metrics.set_token_count(step * tokens_a_step);
  metrics.set_generation(parts_.generation);
  metrics.set_skipped(result.skipped);
  metrics.set_outlier(result.outlier);
  metrics.set_sp_wait_seconds(result.phases[Phase::kSpWait]);
  metrics.set_gradient_sync_wait_seconds(result.phases[Phase::kGradientSync]);
  metrics.set_data_seconds(result.phases[Phase::kData]);
  metrics.set_forward_seconds(result.phases[Phase::kForward]);
  metrics.set_backward_seconds(result.phases[Phase::kBackward]);
  metrics.set_optimizer_seconds(result.phases[Phase::kOptimizer]);
  *metrics.mutable_time() = google::protobuf::util::TimeUtil::NanosecondsToTimestamp(
      absl::ToUnixNanos(SystemClock().Now()));
  return metrics;
}

}  // namespace lasp::worker
