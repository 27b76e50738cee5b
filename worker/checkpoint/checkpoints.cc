#include "worker/checkpoint/checkpoints.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// In which a part of a shard, a MiB, or the last of what has not reached the disk has to be
// written. The peers that have ended do not wait for longer than a hang may take to be noticed.
constexpr absl::Duration kPatience = absl::Seconds(18);

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

absl::Status Checkpoints::SaveLast(const lasp::v1::TrainingState& state) {
  bool idle = writer_->WaitUntilIdle(kPatience);
  if (idle && last_step_ != state.step()) {
    Save(state);
    idle = writer_->WaitUntilIdle(kPatience);
  }
  if (!idle) {
    return absl::UnavailableError(
        absl::StrCat("nothing of the checkpoint after step ", last_step_, " has been written for ",
                     absl::FormatDuration(kPatience),
                     ": the disk under --checkpoint_root does not answer on this host"));
  }
  return absl::OkStatus();
}

lasp::internal::v1::CheckpointTotals Checkpoints::totals() const {
  lasp::internal::v1::CheckpointTotals totals = writer_->totals();
  totals.set_stall_seconds(stall_seconds_);
  return totals;
}

}  // namespace lasp::worker
