// AdamW over the flat parameter buffer.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/update_control.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"

namespace lasp::worker {

// A contiguous range of parameters that is treated alike.
struct ParameterRange {
  int64_t begin = 0;
  int64_t count = 0;
  bool decays = false;  // matrices only
};

// Such a range, and where to find it.
struct UpdatedRange {
  int64_t begin = 0;          // in the masters, and the moments
  int64_t first_element = 0;  // in the flat order of all parameters
  Tensor weight;              // [1, count]: the masters' copy for the products, or the masters
  Tensor gradient;            // [1, count]
  bool decays = false;
};

// Not thread-safe.
class AdamW {
 public:
  // `spec` with its defaults written out. masters: [1, n]. The ranges are what is to be updated.
  // Takes the two moments from `arena`.
  AdamW(const lasp::v1::OptimizerSpec& spec, Backend* backend, Tensor masters,
        const std::vector<UpdatedRange>& ranges, Arena& arena);

  // [1, n], laid out as the masters, of their type or in bf16.
  Tensor first_moments() const { return first_moments_; }

  Tensor second_moments() const { return second_moments_; }

  // Judges the reduced gradients and updates, or leaves everything as it is: where they or the loss
  // are not finite, or the loss is above `loss_limit`. loss, sum_of_squares: kFloat64 [1, 1].
  // control: a kernels::UpdateControl as the last update left it, zeros before the first. Issued to
  // the device: nothing is known when this returns.
  void Update(double learning_rate, double loss_limit, Tensor loss, Tensor sum_of_squares,
              Tensor control);

 private:
  Backend& backend_;
  const AdamWConstants constants_;
  const double max_gradient_norm_;
  const Tensor first_moments_;
  const Tensor second_moments_;
  std::vector<AdamWTensors> tensors_;
};

}  // namespace lasp::worker
