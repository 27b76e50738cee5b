// What a Linear Transformer is made of beside linear attention without decay and what a TransNormer
// has: features, positions, and attention's normaliser (kernels/attention_normaliser.h).
#pragma once

#include <cstdint>

#include "worker/device/tensor.h"

namespace lasp::worker {

struct AttentionShape;

// A sum of keys z, or its gradient, is [batch * heads, head_size] of the accumulation type;
// denominators are [batch * tokens, heads] of it.
class LinearTransformerOps {
 public:
  virtual ~LinearTransformerOps() = default;

  // x [sequences * tokens, D], contiguous: sinusoidal positions from first_position on, in each
  // sequence, are added (kernels/sinusoidal_positions.h).
  virtual void AddPositions(int64_t first_position, int64_t tokens, Tensor x) = 0;

  // kernels/elu_plus_one.h.
  virtual void FeaturesForward(Tensor input, Tensor output) = 0;
  virtual void FeaturesBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) = 0;

  // z_loc into `sum`.
  virtual void KeySum(const AttentionShape& shape, Tensor k, Tensor sum) = 0;
  // From the numerators in `output` to what the layer gives; writes the denominators. sum_in: z_in;
  // empty: zeros.
  virtual void Normalise(const AttentionShape& shape, Tensor q, Tensor k, Tensor sum_in,
                         Tensor output, Tensor denominators) = 0;
  // From the gradient of what the layer gave, `output`, to that of the numerators, in place; the
  // denominators' gradient takes their place.
  virtual void SplitGradient(const AttentionShape& shape, Tensor output, Tensor gradient,
                             Tensor denominators) = 0;
  // dz_loc into `sum`.
  virtual void QuerySum(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                        Tensor sum) = 0;
  // Adds to q_gradient. sum_in: z_in; empty: zeros.
  virtual void AddQueryGradients(const AttentionShape& shape, Tensor k, Tensor denominator_gradient,
                                 Tensor sum_in, Tensor q_gradient) = 0;
  // Adds to k_gradient. sum_gradient_in: dz_in; empty: zeros. q and denominator_gradient are empty
  // where the keys are of another slice than the queries, all before them.
  virtual void AddKeyGradients(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                               Tensor sum_gradient_in, Tensor k_gradient) = 0;
};

}  // namespace lasp::worker
