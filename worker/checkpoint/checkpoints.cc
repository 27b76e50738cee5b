#include "worker/checkpoint/checkpoints.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// A rank that is to leave is killed at the end of its grace period, if not before.
constexpr absl::Duration kWriteTimeout = absl::Minutes(10);

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoints>> Checkpoints::Create(const Options& options) {
  LASP_ASSIGN_OR_RETURN(auto writer, CheckpointWriter::Create(options.writer));
  return std::unique_ptr<Checkpoints>(new Checkpoints(std::move(writer), options));
}

Checkpoints::Checkpoints(std::unique_ptr<CheckpointWriter> writer, const Options& options)
    : decides_(options.writer.fence.rank() == 0),
      schedule_(options.spec, &SystemClock()),
      last_step_(options.restored_step),
      writer_(std::move(writer)) {}

Checkpoints::Vote Checkpoints::VoteAfter(int64_t step) const {
  return {.due = decides_ && schedule_.IsDue(step), .busy = writer_->busy()};
}

void Checkpoints::Save(const lasp::v1::TrainingState& state) {
  const absl::Duration begin = SystemClock().Monotonic();
  schedule_.Begun();
  last_step_ = state.step();
  writer_->Begin(state);
  AddStall(absl::ToDoubleSeconds(SystemClock().Monotonic() - begin));
}

void Checkpoints::SaveLast(const lasp::v1::TrainingState& state) {
  const bool idle = writer_->WaitUntilIdle(kWriteTimeout);
  if (last_step_ == state.step()) {
    return;
  }
  if (!idle) {
    writer_->Refuse(state, absl::DeadlineExceededError(absl::StrCat(
                               "the checkpoint before it has not been written within ",
                               absl::FormatDuration(kWriteTimeout), ": check the disk")));
    return;
  }
  Save(state);
  writer_->WaitUntilIdle(kWriteTimeout);
}

lasp::internal::v1::CheckpointTotals Checkpoints::totals() const {
  lasp::internal::v1::CheckpointTotals totals = writer_->totals();
  totals.set_stall_seconds(stall_seconds_);
  return totals;
}

}  // namespace lasp::worker
