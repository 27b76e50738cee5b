// The ranks of a world fill their tensors together, so that every byte is read once: each reads its
// share and, where every rank has all, gives it to the others.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

struct SharedReading {
  // For errors: "restore checkpoint p/u/step-1.gen-1".
  std::string what;
  const ParameterLayout* layout = nullptr;
  Backend* backend = nullptr;
  Communicator* world = nullptr;  // all ranks
  // What of the tensors this rank has; none: all of them.
  std::optional<std::vector<TensorShare>> owned = {};
  // Asked now and then.
  std::function<bool()> give_up;
  // Told of each block that has been read.
  std::function<void()> on_block = [] {};
};

// Elements [begin, begin + count) of a parameter, from the disk.
using ParameterReader =
    std::function<absl::Status(const Parameter&, int64_t begin, int64_t count, float* to)>;

// This rank's shares into `destination` [1, n], fp32 or bf16. CANCELLED where give_up said so.
absl::Status ReadShare(const SharedReading& reading, const ParameterReader& read,
                       Tensor destination);

// Called by all ranks, with what came of their own work: all succeed, or all fail, with their own
// error or with UNAVAILABLE that names a rank that could not.
absl::Status Agree(const SharedReading& reading, const absl::Status& own);

// Agrees on what came of ReadShare, and then every rank has what it should have of `tensors`.
absl::Status ShareOut(const SharedReading& reading, const absl::Status& own,
                      const std::vector<Tensor>& tensors);

}  // namespace lasp::worker
