#include "worker/optim/adamw.h"

#include <cstddef>

namespace lasp::worker {
namespace {

DType MomentType(const lasp::v1::OptimizerSpec& spec, DType masters) {
  const bool narrow = spec.state_type() == lasp::v1::OptimizerSpec::STATE_TYPE_BF16;
  return narrow && masters == DType::kFloat32 ? DType::kBFloat16 : masters;
}

}  // namespace

AdamW::AdamW(const lasp::v1::OptimizerSpec& spec, Backend* backend, Tensor masters,
             const std::vector<UpdatedRange>& ranges, Arena& arena)
    : backend_(*backend),
      constants_{.beta1 = spec.beta1(), .beta2 = spec.beta2(), .epsilon = spec.epsilon()},
      max_gradient_norm_(spec.max_gradient_norm()),
      first_moments_(
          arena.Take(MemoryUse::kOptimizer, MomentType(spec, masters.dtype), 1, masters.columns)),
      second_moments_(
          arena.Take(MemoryUse::kOptimizer, MomentType(spec, masters.dtype), 1, masters.columns)) {
  tensors_.reserve(ranges.size());
  for (const UpdatedRange& range : ranges) {
    const int64_t count = range.gradient.columns;
    const auto part = [&range, count](Tensor flat) { return flat.Columns(range.begin, count); };
    tensors_.push_back({.master = part(masters),
                        .weight = range.weight,
                        .gradient = range.gradient,
                        .first_moment = part(first_moments_),
                        .second_moment = part(second_moments_),
                        .first_element = range.first_element,
                        .weight_decay = range.decays ? spec.weight_decay() : 0});
  }
}

void AdamW::Update(double learning_rate, double loss_limit, Tensor loss, Tensor sum_of_squares,
                   Tensor control) {
  constexpr int64_t kGiven = offsetof(kernels::UpdateControl, learning_rate) / sizeof(double);
  static_assert(offsetof(kernels::UpdateControl, loss_limit) == (kGiven + 1) * sizeof(double));
  const double given[] = {learning_rate, loss_limit};
  backend_.CopyFromHost(given, control.Columns(kGiven, 2));
  backend_.JudgeUpdate(constants_, max_gradient_norm_, loss, sum_of_squares, control);
  backend_.AdamW(constants_, control, tensors_);
}

}  // namespace lasp::worker
