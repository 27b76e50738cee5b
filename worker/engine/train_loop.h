// From the first step to max_steps: train, evaluate, save, report, leave together.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/checkpoint/checkpoints.h"
#include "worker/engine/progress_clock.h"
#include "worker/engine/step_load.h"
#include "worker/engine/trainer.h"

namespace lasp::worker {

// Who hears of a rank's progress. Called by the training thread, but for OnShard.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual absl::Status OnPhase(lasp::v1::RankStatus::Phase phase) = 0;
  virtual absl::Status OnStep(const lasp::internal::v1::RankStep& step) = 0;
  virtual absl::Status OnCheckpoints(const lasp::internal::v1::CheckpointTotals& totals) = 0;
  // Any thread.
  virtual void OnShard(const lasp::v1::ShardWritten& shard) = 0;
};

// How a run ended without an error.
struct TrainEnd {
  int64_t step = 0;  // the last one finished
  bool drained = false;
};

class TrainLoop {
 public:
  struct Parts {
    int64_t generation = 0;
    // All outlive the loop.
    Trainer* trainer = nullptr;
    Checkpoints* checkpoints = nullptr;  // null: none are written
    TrainObserver* observer = nullptr;
    ProgressClock* progress = nullptr;  // null where nobody watches
    StepLoad* load = nullptr;           // likewise
  };

  // `options` as given to the trainer.
  TrainLoop(const Trainer::Options& options, const Parts& parts);

  // Trains to the end, to a drain or to an error. An end and a drain leave a checkpoint. A
  // BadStepError where the spec would not go on after such a step.
  absl::StatusOr<TrainEnd> Run();

  // The steps behind a state that is left after an error.
  void AddRecentSteps(lasp::v1::StateLeft* left) const;

  // The last step that was finished, also after an error.
  int64_t last_step() const { return last_step_; }

 private:
  // After a step that is not the last: evaluates, and begins a checkpoint, where they are due.
  absl::Status BetweenSteps(int64_t step, const StepResult& result, EvaluationResult* evaluation);
  // What recovery says to a step that is not finite, or an outlier.
  absl::Status JudgeStep(int64_t step, const StepResult& result) const;
  // For those who watch.
  void EnterSection(ProgressClock::Section section);
  void TellFinished(const StepResult& result);
  absl::Status SaveLast();
  // Tells the observer where there is something new.
  absl::Status TellCheckpoints();
  // What AddRecentSteps gives; an evaluation after the step may fail.
  void Remember(int64_t step, const StepResult& result);
  // Of the step that was remembered last.
  lasp::internal::v1::RankStep Report(int64_t step, const StepResult& result) const;

  lasp::v1::StepMetrics MetricsOf(int64_t step, const StepResult& result) const;

  // A line of progress in rank 0's log, at most one a second.
  void Log(const lasp::v1::StepMetrics& metrics);

  const Trainer::Options options_;
  const Parts parts_;
  Trainer& trainer_;
  Checkpoints* const checkpoints_;
  TrainObserver& observer_;
  // What was sent before the first step is not the reduction's.
  const int64_t bytes_before_;
  int64_t last_step_;
  std::string told_totals_;
  // On every rank, the newest last.
  std::deque<lasp::v1::StepMetrics> recent_;
  double sp_wait_seconds_ = 0;
  double gradient_sync_wait_seconds_ = 0;
  absl::Duration next_log_ = -absl::InfiniteDuration();
};

}  // namespace lasp::worker
