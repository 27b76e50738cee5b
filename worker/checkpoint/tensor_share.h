// Which part of a run's tensors a rank writes and reads: a cut of the flat buffers that knows the
// number of ranks and nothing else of their shape.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lasp/v1/checkpoint.pb.h"
#include "worker/device/tensor.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// What a checkpoint holds, in this order: masters, first moments and second moments of AdamW, each
// [1, n] and laid out as ParameterLayout says.
using TrainingTensors = std::array<Tensor, 3>;

// Before a parameter's name in a checkpoint; by part.
inline constexpr std::array<const char*, 3> kPartPrefixes = {"", "optimizer.first_moment.",
                                                             "optimizer.second_moment."};

// Elements [begin, begin + count) of each part.
struct TensorShare {
  int64_t begin = 0;
  int64_t count = 0;
};

// The share of `rank` of `elements`: contiguous, as large as any other but for 64 elements, in the
// order of the ranks, and empty where there are more ranks than pieces of 64.
TensorShare ShareOf(int64_t elements, int world_size, int rank);

// All tensors of a run: every parameter, once a part.
std::vector<lasp::v1::CheckpointTensor> CheckpointTensors(const ParameterLayout& layout);

// What of which tensor a share is, part by part. Offsets count from the first byte of the share's
// data, fp32 without gaps.
std::vector<lasp::v1::TensorExtent> ExtentsOf(const ParameterLayout& layout, TensorShare share);

}  // namespace lasp::worker
