// The fp64 oracle of a whole model, over parameters that lie as the engine's.
#pragma once

#include <vector>

#include "kernels/reference/transnormer.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// parameters: [layout.count()].
kernels::reference::TransNormer ReferenceModel(const ModelConfig& config,
                                               const ParameterLayout& layout,
                                               const std::vector<double>& parameters);

}  // namespace lasp::worker
