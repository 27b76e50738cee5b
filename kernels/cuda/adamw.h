// AdamW (kernels/adamw.h) over many tensors at once: fp32 master parameters, of which a bf16 copy
// is written for the next step. What changes from step to step lies in device memory, so that
// neither a launch nor a recorded graph of launches waits for the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// In device memory.
struct AdamWControl {
  double updates = 0;        // made so far; JudgeUpdate counts
  double skipped = 0;        // steps without an update
  double gradient_norm = 0;  // of this step
  float learning_rate = 0;   // of this step; the host writes it
  float correction1 = 1;     // 1 - beta1^updates
  float correction2 = 1;     // 1 - beta2^updates
  float gradient_scale = 1;  // the clipping factor
  int32_t skip = 0;          // not 0: this step makes no update
  int32_t skipped_in_a_row = 0;
};

// Decides on this step's update from the reduced gradient's sum of squares and the loss, as
// worker/optim/step_guard.h: none where one of the two is not finite, else clipped to
// max_gradient_norm (0: not clipped).
struct JudgeUpdateArgs {
  const double* sum_of_squares = nullptr;
  const double* loss = nullptr;  // null: only the gradient is judged
  double max_gradient_norm = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  AdamWControl* control = nullptr;
};

cudaError_t JudgeUpdate(const JudgeUpdateArgs& args, cudaStream_t stream);

// A range of parameters. Pointers to device memory.
struct AdamWTensor {
  int64_t count = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  Bf16* copy = nullptr;  // parameter, rounded; null: none is kept
  float weight_decay = 0;
};

struct AdamWArgs {
  const AdamWTensor* tensors = nullptr;  // [tensor_count], in host memory, read before the return
  int tensor_count = 0;
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float epsilon = 1e-8F;
  const AdamWControl* control = nullptr;  // in device memory
};

cudaError_t AdamW(const AdamWArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
