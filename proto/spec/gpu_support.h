// Which models and methods the GPU kernels compute (kernels/cuda/linear_attention.h); the CPU's
// compute all.
#pragma once

#include <string>

#include "lasp/v1/training_spec.pb.h"

namespace lasp {

// Why GPUs do not compute heads of the model's size, and what to choose; empty where they do. The
// model's sizes are sound (ValidateSpec), or 0: then nothing is said.
std::string ReasonAgainstGpus(const v1::ModelSpec& model);

// The same of the sequence-parallel method, for the model.
std::string ReasonAgainstGpus(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model);

}  // namespace lasp
