// AdamW over the flat parameter buffer.
#pragma once

#include <cstdint>
#include <vector>

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

// Not thread-safe.
class AdamW {
 public:
  // `spec` with its defaults written out. masters, weights (their copy for the products, or the
  // same) and gradients: [1, n]. The ranges cover what is to be updated. Takes the two moments from
  // `arena`.
  AdamW(const lasp::v1::OptimizerSpec& spec, Backend* backend, Tensor masters, Tensor weights,
        Tensor gradients, std::vector<ParameterRange> ranges, Arena& arena);

  // The `update`-th update, from 1, where `decision` (Backend::DecideUpdate) allows it.
  void Update(int64_t update, double learning_rate, Tensor decision);

 private:
  const lasp::v1::OptimizerSpec spec_;
  Backend& backend_;
  const Tensor masters_;
  const Tensor weights_;
  const Tensor gradients_;
  const std::vector<ParameterRange> ranges_;
  Tensor first_moments_;
  Tensor second_moments_;
};

}  // namespace lasp::worker
