// What a rank that outlives its generation leaves in its host's memory, so that a lost replica can
// be rebuilt from the others without reading a checkpoint, and no step is lost.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// Of a state that every rank has whole: the share that `rank` leaves. Two ranks at least leave
// each, as far from each other as the world has room for, so that the loss of a rank, or of a host
// among several, leaves one of them. A state below 1.5 GB every rank leaves whole: then it does not
// matter that some had finished the last step when it broke off for others.
TensorShare LeftShareOf(int64_t elements, int world_size, int rank);

struct LeaveOptions {
  std::string memory_root;  // the agent's
  lasp::v1::Fence fence;
  // Ascending, and as they lie in the tensors.
  std::vector<TensorShare> shares;
  int64_t elements = 0;  // of the whole
  Backend* backend = nullptr;
  TrainingTensors tensors = {};  // at rest; fp32, moments also bf16; the files are fp32
  // Told of each block.
  std::function<void()> on_block = [] {};
};

// Writes the shares, which nobody reads before this has returned. RESOURCE_EXHAUSTED where it would
// take more than half of the memory that is left; otherwise what the system says.
absl::StatusOr<lasp::v1::StateLeft> LeaveState(const LeaveOptions& options,
                                               const lasp::v1::TrainingState& state);

}  // namespace lasp::worker
