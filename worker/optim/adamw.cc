#include "worker/optim/adamw.h"

#include <cstddef>

namespace lasp::worker {

AdamW::AdamW(const lasp::v1::OptimizerSpec& spec, Backend* backend, Tensor masters, Tensor weights,
             Tensor gradients, const std::vector<ParameterRange>& ranges, Arena& arena)
    : backend_(*backend),
      constants_{.beta1 = spec.beta1(), .beta2 = spec.beta2(), .epsilon = spec.epsilon()},
      max_gradient_norm_(spec.max_gradient_norm()),
      first_moments_(arena.Take(MemoryUse::kOptimizer, masters.dtype, 1, masters.columns)),
      second_moments_(arena.Take(MemoryUse::kOptimizer, masters.dtype, 1, masters.columns)) {
  for (const ParameterRange& range : ranges) {
    const auto part = [&range](Tensor flat) { return flat.Columns(range.begin, range.count); };
    tensors_.push_back({.master = part(masters),
                        .weight = part(weights),
                        .gradient = part(gradients),
                        .first_moment = part(first_moments_),
                        .second_moment = part(second_moments_),
                        .weight_decay = range.decays ? spec.weight_decay() : 0});
  }
}

void AdamW::Update(double learning_rate, double loss_limit, Tensor loss, Tensor sum_of_squares,
                   Tensor control) {
  static_assert(offsetof(kernels::UpdateControl, learning_rate) == 0 &&
                offsetof(kernels::UpdateControl, loss_limit) == sizeof(double));
  const double given[] = {learning_rate, loss_limit};
  backend_.CopyFromHost(given, control.Columns(0, 2));
  backend_.JudgeUpdate(constants_, max_gradient_norm_, loss, sum_of_squares, control);
  backend_.AdamW(constants_, control, tensors_);
}

}  // namespace lasp::worker
