// Which part of a run's tensors a rank writes and reads: what it owns or, where every rank has all,
// a cut of the flat buffers that knows the number of ranks and nothing else of their shape.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lasp/v1/checkpoint.pb.h"
#include "worker/device/tensor.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// What a checkpoint holds, in this order: masters, first moments and second moments of AdamW, each
// [1, n]; as ParameterLayout says where a rank has all, otherwise as its shares say.
using TrainingTensors = std::array<Tensor, 3>;

// Before a parameter's name in a checkpoint; by part.
inline constexpr std::array<const char*, 3> kPartPrefixes = {"", "optimizer.first_moment.",
                                                             "optimizer.second_moment."};

// The share of `rank` of `elements` that every rank has whole: contiguous, as large as any other
// but for 64 elements, in the order of the ranks, and empty where there are more ranks than pieces
// of 64.
TensorShare ShareOf(int64_t elements, int world_size, int rank);

// What a rank owns; none where it owns all, as every other does.
std::optional<std::vector<TensorShare>> OwnedShares(const DataParallel& parallel);

// The part of one of `ranks` that all have `shares`.
std::vector<TensorShare> PartOf(const std::vector<TensorShare>& shares, int ranks, int rank);

// All tensors of a run: every parameter, once a part.
std::vector<lasp::v1::CheckpointTensor> CheckpointTensors(const ParameterLayout& layout);

// What of which tensor the shares are: each part's, one share behind the other. Offsets count from
// the first byte of the first, fp32 without gaps.
std::vector<lasp::v1::TensorExtent> ExtentsOf(const ParameterLayout& layout,
                                              const std::vector<TensorShare>& shares);

}  // namespace lasp::worker
