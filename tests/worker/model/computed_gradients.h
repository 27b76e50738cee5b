// What a whole model's loss and gradients are on some backend, to be compared with another's.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/transnormer.h"

namespace lasp::worker {

struct ComputedGradients {
  double loss = 0;
  std::vector<double> gradients;  // by ParameterLayout
};

// Of fixed parameters that fp32 holds. `rehearse`: after a rehearsal, as in training on a GPU.
ComputedGradients ComputeGradients(const LocalRanksOptions& options, const ModelConfig& config,
                                   const MicroBatchShape& shape, const RandomSequences& batch,
                                   bool rehearse = false);

// Of fixed random sequences.
ComputedGradients ComputeGradients(const LocalRanksOptions& options, const ModelConfig& config,
                                   const MicroBatchShape& shape, bool rehearse = false);

// Bytes of a text such as the quick start's, cut into sequences.
RandomSequences TextSequences(const MicroBatchShape& shape, size_t first = 0);

// Of one parameter's gradient.
double RelativeRms(const std::vector<double>& actual, const std::vector<double>& expected,
                   const Parameter& parameter);

// The quick start's model.
ModelConfig QuickStartModel();

}  // namespace lasp::worker
