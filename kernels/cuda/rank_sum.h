// The sum of what several ranks have, in the order of the ranks: the same bits wherever and
// whenever it is computed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lasp::kernels::cuda {

struct RankSum {
  static constexpr int kMostRanks = 16;

  int ranks = 0;
  int64_t count = 0;
  // [count] of each rank.
  const float* parts[kMostRanks] = {};
  float* sum = nullptr;  // [count]; may be one of the parts
};

// Bound by memory: reads `ranks` times `count` floats and writes `count`.
cudaError_t SumOverRanks(const RankSum& arguments, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
