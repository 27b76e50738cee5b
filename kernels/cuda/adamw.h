// AdamW (kernels/adamw.h) and its control (kernels/update_control.h) on the GPU, over many tensors
// at once: fp32 master parameters, of which a bf16 copy is written for the next step. What changes
// from step to step lies in device memory, so that neither a launch nor a recorded graph of
// launches waits for the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/update_control.h"

namespace lasp::kernels::cuda {

// args.control in device memory, as all it points to.
cudaError_t JudgeUpdate(const JudgeUpdateArgs& args, cudaStream_t stream);

// A range of parameters. Pointers to device memory. Moment: float, or Bf16, which is rounded at
// random as on the CPU.
template <typename Moment>
struct AdamWTensor {
  int64_t count = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  Moment* first_moment = nullptr;
  Moment* second_moment = nullptr;
  Bf16* copy = nullptr;  // parameter, rounded; null: none is kept
  float weight_decay = 0;
  int64_t first_element = 0;  // among all parameters
};

template <typename Moment>
struct AdamWArgs {
  // [tensor_count], in host memory, read before the return.
  const AdamWTensor<Moment>* tensors = nullptr;
  int tensor_count = 0;
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float epsilon = 1e-8F;
  const UpdateControl* control = nullptr;  // in device memory
};

template <typename Moment>
cudaError_t AdamW(const AdamWArgs<Moment>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
