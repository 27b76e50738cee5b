// The parameters before the first step: a pure function of the seed and the model, so that every
// rank of every SP x DP shape makes the same ones without a broadcast.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "worker/device/backend.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// Normal deviates 2 * pair and 2 * pair + 1 of the stream named `name` under `seed`. Philox 4x32-10
// (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3") and Box-Muller.
std::array<double, 2> NormalDeviates(uint64_t seed, uint64_t name, uint64_t pair);

// Weights ~ N(0, init_std); learned frequencies start at the fixed ones. parameters: [1, n], of
// which the shares are filled.
void InitializeParameters(const ModelConfig& config, const ParameterLayout& layout, int64_t seed,
                          Backend& backend, const std::vector<TensorShare>& shares,
                          Tensor parameters);

}  // namespace lasp::worker
