// A run takes up where a checkpoint left it, whatever shape of ranks wrote it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

struct RestoreOptions {
  std::string root;  // --checkpoint_root
  lasp::v1::CheckpointReference reference;
  lasp::v1::TrainingSpec spec;  // with its defaults written out
  const ParameterLayout* layout = nullptr;
  Backend* backend = nullptr;
  Communicator* world = nullptr;  // all ranks
  TrainingTensors tensors = {};   // where it goes: fp32, moments also bf16
  // What of them this rank has; none: all of them.
  std::optional<std::vector<TensorShare>> owned = {};
  // Asked now and then.
  std::function<bool()> give_up;
  // Told of each block that has been read.
  std::function<void()> on_block = [] {};
};

// Called by all ranks. Each reads its share from the disk and gives it to the others, so that every
// byte is read once. All succeed or all fail: with an error of their own, as CheckpointReader has
// them, FAILED_PRECONDITION for a checkpoint of another model or another spec, CANCELLED where
// give_up said so; or with UNAVAILABLE that names the rank that could not.
absl::StatusOr<lasp::v1::TrainingState> Restore(const RestoreOptions& options);

}  // namespace lasp::worker
