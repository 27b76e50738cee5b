// Gated norms of rows that several ranks hold in parts (kernels/split_gated_rms_norm.h).
#pragma once

#include <cstdint>

#include "worker/device/tensor.h"

namespace lasp::worker {

// sums and inverse_rms: [rows, 1], of the accumulation type; whole_width: columns of all parts.
class SplitNormOps {
 public:
  virtual ~SplitNormOps() = default;

  // The rows' own sums of squares.
  virtual void SumsOfSquares(Tensor input, Tensor sums) = 0;
  // inverse_rms holds the sums over all parts, which it replaces.
  virtual void Forward(int64_t whole_width, Tensor input, Tensor gate, Tensor output,
                       Tensor inverse_rms) = 0;
  // The rows' own sums of input (.) output_gradient (.) gate.
  virtual void SumsOfProducts(Tensor input, Tensor gate, Tensor output_gradient, Tensor sums) = 0;
  // sums: over all parts. input_gradient may be output_gradient.
  virtual void Backward(int64_t whole_width, Tensor input, Tensor gate, Tensor inverse_rms,
                        Tensor sums, Tensor output_gradient, Tensor input_gradient,
                        Tensor gate_gradient) = 0;
};

}  // namespace lasp::worker
