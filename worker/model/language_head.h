// From the last hidden states to the loss: logits = y W^T and their cross entropy, chunk by chunk,
// so that the [N, V] logits never exist at once.
#pragma once

#include <cstdint>

#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

class LanguageHead {
 public:
  LanguageHead(int64_t rows, int64_t vocab_size, Backend* backend, Arena& arena);

  // Adds the summed loss of hidden [N, D] against labels [N, 1] to loss_sum. Where hidden_gradient
  // is given, writes it [N, D] and writes weight_gradient [V, D], or `adds` to it, both times
  // gradient_scale.
  void Run(Tensor hidden, Tensor weight, Tensor labels, double gradient_scale, Tensor loss_sum,
           Tensor hidden_gradient, Tensor weight_gradient, bool adds);

 private:
  Backend& backend_;
  Tensor logits_;
};

}  // namespace lasp::worker
