// A run takes up what ranks of an earlier generation left in the memory of their hosts.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

struct RebuildOptions {
  std::string memory_root;  // the agent's
  std::string uid;          // the job's
  lasp::v1::Rebuild rebuild;
  const ParameterLayout* layout = nullptr;
  Backend* backend = nullptr;
  Communicator* world = nullptr;  // all ranks
  TrainingTensors tensors = {};   // where it goes: fp32
  // What of them this rank has; none: all.
  std::optional<std::vector<TensorShare>> owned = {};
  // Asked now and then.
  std::function<bool()> give_up;
  // Told of each block that has been read.
  std::function<void()> on_block = [] {};
};

// Called by all ranks. Each reads the parts that it is to read and gives them to the others. All
// succeed or all fail: with UNAVAILABLE where what was left is gone, is not what its rank said that
// it had left, or does not make a whole; CANCELLED where give_up said so.
absl::StatusOr<lasp::v1::TrainingState> RebuildState(const RebuildOptions& options);

}  // namespace lasp::worker
