// Linear attention on the CPU that rounds where the kernels of kernels/cuda do, for the backend of
// bf16_cpu_backend.h: sums in fp32, and as bf16 whatever is an operand of a product (scores times
// decay, values or keys times decay, rotated rows, the state) or leaves the kernel. A segment is
// one chunk of 64 tokens, which is how a GPU cuts a sequence that is too short to fill it; with
// longer segments it rounds elsewhere.
//
// Arguments as in worker/device/backend.h. Saved states are one a chunk.
#pragma once

#include "worker/device/backend.h"

namespace lasp::worker {

void RoundingLocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                        Tensor saved_states);
void RoundingOutput(const AttentionShape& shape, const AttentionForward& tensors);
void RoundingLocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                                Tensor state_gradient, Tensor saved_gradients);
void RoundingGradients(const AttentionShape& shape, const AttentionBackward& tensors);

}  // namespace lasp::worker
