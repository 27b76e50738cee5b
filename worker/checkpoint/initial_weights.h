// A run begins with weights that are there already.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "proto/interchange/model_folder.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

struct InitialWeightsOptions {
  const ModelFolder* folder = nullptr;  // that fits the model of `layout`
  const ParameterLayout* layout = nullptr;
  Backend* backend = nullptr;
  Communicator* world = nullptr;  // all ranks
  Tensor masters = {};            // where they go: fp32
  // What of them this rank has; none: all of them.
  std::optional<std::vector<TensorShare>> owned = {};
  // Asked now and then.
  std::function<bool()> give_up;
  // Told of each block that has been read.
  std::function<void()> on_block = [] {};
};

// Called by all ranks, of which each reads its share. All succeed or all fail, with ModelFolder's
// errors, CANCELLED, or UNAVAILABLE that names the rank that could not.
absl::Status LoadInitialWeights(const InitialWeightsOptions& options);

}  // namespace lasp::worker
