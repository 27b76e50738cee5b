// The numbers of a step that decide: they lie on the device, side by side, so that one reduction
// takes them over the world and the host waits once a step to read them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/update_control.h"
#include "lasp/v1/checkpoint.pb.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// What a rank says of a step; after the reduction, whether any rank has.
struct StepVotes {
  bool drain = false;            // it has been asked to
  bool checkpoint_due = false;   // and one is wanted after this step
  bool checkpoint_busy = false;  // the one before is still being written
};

// Of a step, over the world.
struct StepNumbers {
  double loss_sum = 0;
  double gradient_norm = 0;
  StepVotes votes;
};

// Not thread-safe.
class StepControl {
 public:
  // `backend` must outlive it.
  StepControl(Backend* backend, Arena& arena);

  // Before a step's first forward: the sums are zeros.
  void Begin();

  // kFloat64 [1, 1] each: added to.
  Tensor loss_sum() const;
  Tensor sum_of_squares() const;
  // [1, n], a kernels::UpdateControl: what the optimizer reads and writes.
  Tensor update() const;

  // Starts the reduction of the loss and of the votes, with the step's number as witness of each
  // rank that takes part: what an earlier step left in some buffer is none.
  Operation Reduce(int64_t step, const StepVotes& votes, Communicator& world);
  // Where ranks have parts of the norm: it, too, is whole only if all took part.
  absl::Status WitnessNorm(int64_t step, Communicator& world);

  // The sum of the ranks' labels. Waits for the device.
  absl::StatusOr<double> CountLabels(int64_t own, Communicator& world);

  // Of what has been evaluated since Begin, over the world. Waits for the device.
  struct Evaluated {
    double loss_sum = 0;
    double label_count = 0;
    bool drain = false;
  };

  absl::StatusOr<Evaluated> SumEvaluated(double own_labels, bool drain, Communicator& world);

  // Waits for the device.
  absl::StatusOr<StepNumbers> Read();

  // As Read found it last: what has been updated and skipped so far.
  const kernels::UpdateControl& last_update() const { return last_update_; }

  // Goes on counting where a run left it.
  void TakeUpCounts(const lasp::v1::TrainingState& restored);

 private:
  // Over the world. Waits for the device.
  absl::Status SumToHost(Tensor numbers, double* values, Communicator& world);

  Backend& backend_;
  Tensor numbers_;
  kernels::UpdateControl last_update_;
};

}  // namespace lasp::worker
