// Which jobs the GPU kernels compute (kernels/cuda/linear_attention.h); the CPU's compute all.
#pragma once

#include <string>
#include <vector>

#include "lasp/v1/training_spec.pb.h"

namespace lasp {

// Why GPUs do not compute heads of the model's size, and what to choose; empty where they do. The
// model's sizes are sound (ValidateSpec), or 0: then nothing is said.
std::string ReasonAgainstGpus(const v1::ModelSpec& model);

// A field of a job that GPUs do not compute.
struct GpuRefusal {
  // From "spec." on.
  std::string field;
  // What it is, and what to choose.
  std::string reason;
};

// What speaks against GPUs in a job with its defaults written out; nothing where they compute it.
std::vector<GpuRefusal> RefusalsByGpus(const v1::TrainingSpec& spec);

}  // namespace lasp
