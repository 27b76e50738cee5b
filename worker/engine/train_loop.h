// Steps 1 to max_steps: train, evaluate, report, leave together.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/engine/trainer.h"

namespace lasp::worker {

// Who hears of a rank's progress. Called by the training thread.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual absl::Status OnPhase(lasp::v1::RankStatus::Phase phase) = 0;
  virtual absl::Status OnStep(const lasp::internal::v1::RankStep& step) = 0;
};

// How a run ended without an error.
struct TrainEnd {
  int64_t step = 0;  // the last one finished
  bool drained = false;
};

class TrainLoop {
 public:
  // `options` as given to the trainer. Both pointers must outlive this.
  TrainLoop(const Trainer::Options& options, int64_t generation, Trainer* trainer,
            TrainObserver* observer);

  // Trains to the end, to a drain or to an error.
  absl::StatusOr<TrainEnd> Run();

  // The last step that was finished, also after an error.
  int64_t last_step() const { return last_step_; }

 private:
  lasp::internal::v1::RankStep Report(int64_t step, const StepResult& result,
                                      const EvaluationResult& evaluation);

  // A line of progress in rank 0's log, at most one a second.
  void Log(const lasp::v1::StepMetrics& metrics);

  const Trainer::Options options_;
  const int64_t generation_;
  Trainer& trainer_;
  TrainObserver& observer_;
  int64_t last_step_ = 0;
  double sp_wait_seconds_ = 0;
  double gradient_sync_wait_seconds_ = 0;
  absl::Duration next_log_ = -absl::InfiniteDuration();
};

}  // namespace lasp::worker
