// What a model is computed on. Each model program links one implementation: cpu_model_device.cc or
// cuda_model_device.cc.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/device/backend.h"

namespace lasp::worker {

// Call from the thread that will issue the operations. INVALID_ARGUMENT for a model that the device
// cannot compute; FAILED_PRECONDITION where there is none.
absl::StatusOr<std::unique_ptr<Backend>> OpenModelDevice(const lasp::v1::ModelSpec& model);

// "CPU" or "GPU".
const char* ModelDeviceName();

// Of the program that links it: "lasp-model".
const char* ModelProgramName();

}  // namespace lasp::worker
