#include "worker/engine/step_control.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// Places in numbers_. The first, up to the witness, are summed over the world.
constexpr int64_t kLossSum = 0;
constexpr int64_t kLabelCount = 1;
// What every rank says of a step lies side by side: its votes, and that it takes part.
constexpr int64_t kDrain = 2;
constexpr int64_t kCheckpointDue = 3;
constexpr int64_t kCheckpointBusy = 4;
constexpr int64_t kSums = 5;
constexpr int64_t kUpdate = kSums;
constexpr int64_t kWitness = kUpdate;
static_assert(offsetof(kernels::UpdateControl, witness) == 0);
static_assert(offsetof(kernels::UpdateControl, witness_wanted) == sizeof(double));
constexpr int64_t kUpdateSize = sizeof(kernels::UpdateControl) / sizeof(double);
constexpr int64_t kSumOfSquares = kUpdate + kUpdateSize;
constexpr int64_t kSize = kSumOfSquares + 1;

}  // namespace

StepControl::StepControl(Backend* backend, Arena& arena)
    : backend_(*backend), numbers_(arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, kSize)) {}

Tensor StepControl::loss_sum() const { return numbers_.Columns(kLossSum, 1); }

Tensor StepControl::sum_of_squares() const { return numbers_.Columns(kSumOfSquares, 1); }

Tensor StepControl::update() const { return numbers_.Columns(kUpdate, kUpdateSize); }

void StepControl::Begin() {
  backend_.Fill(0, numbers_.Columns(0, kSums));
  backend_.Fill(0, sum_of_squares());
}

Operation StepControl::Reduce(int64_t step, const StepVotes& votes, Communicator& world) {
  const auto witness = static_cast<double>(step);
  const double said[] = {votes.drain ? 1.0 : 0.0, votes.checkpoint_due ? 1.0 : 0.0,
                         votes.checkpoint_busy ? 1.0 : 0.0, witness, witness * world.size()};
  backend_.CopyFromHost(said, numbers_.Columns(kDrain, std::size(said)));
  return world.AllReduceSum(numbers_.Columns(0, kWitness + 1));
}

absl::Status StepControl::WitnessNorm(int64_t step, Communicator& world) {
  const auto witness = static_cast<double>(step);
  const Tensor place = numbers_.Columns(kWitness, 1);
  backend_.CopyFromHost(&witness, place);
  return world.AllReduceSum(place).Wait();
}

absl::Status StepControl::SumToHost(Tensor numbers, double* values, Communicator& world) {
  Operation sum = world.AllReduceSum(numbers);
  LASP_RETURN_IF_ERROR(sum.Wait());
  backend_.CopyToHost(numbers, values);
  // The device's wait also ends where communication is broken off.
  return sum.Wait();
}

absl::StatusOr<double> StepControl::CountLabels(int64_t own, Communicator& world) {
  auto labels = static_cast<double>(own);
  const Tensor count = numbers_.Columns(kLabelCount, 1);
  backend_.CopyFromHost(&labels, count);
  LASP_RETURN_IF_ERROR(SumToHost(count, &labels, world));
  backend_.Fill(0, count);
  return labels;
}

absl::StatusOr<StepControl::Evaluated> StepControl::SumEvaluated(double own_labels, bool drain,
                                                                 Communicator& world) {
  const double drains = drain ? 1 : 0;
  backend_.CopyFromHost(&drains, numbers_.Columns(kDrain, 1));
  backend_.CopyFromHost(&own_labels, numbers_.Columns(kLabelCount, 1));
  double read[kSums];
  LASP_RETURN_IF_ERROR(SumToHost(numbers_.Columns(0, kSums), read, world));
  return Evaluated{
      .loss_sum = read[kLossSum], .label_count = read[kLabelCount], .drain = read[kDrain] > 0};
}

absl::StatusOr<StepNumbers> StepControl::Read() {
  LASP_RETURN_IF_ERROR(backend_.Synchronize());
  double read[kSize];
  backend_.CopyToHost(numbers_, read);
  std::memcpy(static_cast<void*>(&last_update_), read + kUpdate, sizeof last_update_);
  return StepNumbers{.loss_sum = read[kLossSum],
                     .gradient_norm = std::sqrt(read[kSumOfSquares]),
                     .votes = {.drain = read[kDrain] > 0,
                               .checkpoint_due = read[kCheckpointDue] > 0,
                               .checkpoint_busy = read[kCheckpointBusy] > 0}};
}

void StepControl::TakeUpCounts(const lasp::v1::TrainingState& restored) {
  last_update_.updates = static_cast<double>(restored.update_count());
  last_update_.skipped = static_cast<double>(restored.skipped_count());
  last_update_.skipped_in_a_row = static_cast<double>(restored.skipped_in_a_row());
  backend_.CopyFromHost(&last_update_, update());
}

}  // namespace lasp::worker
