// The checkpoints of one run: when they are begun, and that each step has one at most.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/checkpoint/checkpoint_schedule.h"
#include "worker/checkpoint/checkpoint_writer.h"

namespace lasp::worker {

// For the training thread.
class Checkpoints {
 public:
  struct Options {
    CheckpointWriter::Options writer;
    lasp::v1::CheckpointSpec spec;
    int64_t restored_step = 0;  // of the checkpoint that the run began from; 0: none
  };

  // What one rank has to say about a checkpoint after a step; all ranks then do alike.
  struct Vote {
    bool due = false;   // rank 0 alone
    bool busy = false;  // with the one before
  };

  // Errors as CheckpointWriter::Create.
  static absl::StatusOr<std::unique_ptr<Checkpoints>> Create(const Options& options);

  Vote VoteAfter(int64_t step) const;

  // To be called before masters and moments change.
  absl::Status HoldDevice() { return writer_->HoldDevice(); }

  // Time for which an update had to wait after HoldDevice.
  void AddStall(double seconds) { stall_seconds_ += seconds; }

  // Begins one of `state`, on all ranks alike; none may be busy.
  void Save(const lasp::v1::TrainingState& state);
  // The run ends here: waits until what is being written has been, and then for one of `state`. A
  // shard that cannot be written is on_shard's to hear of; UNAVAILABLE where the disk does not
  // answer any more.
  absl::Status SaveLast(const lasp::v1::TrainingState& state);

  // False where SaveLast did not see the end of it.
  bool idle() const { return !writer_->busy(); }

  int64_t staging_bytes() const { return writer_->staging_bytes(); }

  lasp::internal::v1::CheckpointTotals totals() const;

 private:
  Checkpoints(std::unique_ptr<CheckpointWriter> writer, const Options& options);

  const bool decides_;
  CheckpointSchedule schedule_;
  // That there is a checkpoint of, or an attempt at one.
  int64_t last_step_;
  double stall_seconds_ = 0;
  const std::unique_ptr<CheckpointWriter> writer_;
};

}  // namespace lasp::worker
