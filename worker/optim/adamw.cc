#include "worker/optim/adamw.h"

#include <cmath>
#include <utility>

namespace lasp::worker {

AdamW::AdamW(const lasp::v1::OptimizerSpec& spec, Backend* backend, Tensor masters, Tensor weights,
             Tensor gradients, std::vector<ParameterRange> ranges, Arena& arena)
    : spec_(spec),
      backend_(*backend),
      masters_(masters),
      weights_(weights),
      gradients_(gradients),
      ranges_(std::move(ranges)),
      first_moments_(arena.Take(MemoryUse::kOptimizer, masters.dtype, 1, masters.columns)),
      second_moments_(arena.Take(MemoryUse::kOptimizer, masters.dtype, 1, masters.columns)) {}

void AdamW::Update(int64_t update, double learning_rate, Tensor decision) {
  AdamWStep step{.learning_rate = learning_rate,
                 .beta1 = spec_.beta1(),
                 .beta2 = spec_.beta2(),
                 .epsilon = spec_.epsilon(),
                 .weight_decay = 0,
                 .correction1 = 1 - std::pow(spec_.beta1(), static_cast<double>(update)),
                 .correction2 = 1 - std::pow(spec_.beta2(), static_cast<double>(update))};
  for (const ParameterRange& range : ranges_) {
    step.weight_decay = range.decays ? spec_.weight_decay() : 0;
    backend_.AdamW(step, decision, masters_.Columns(range.begin, range.count),
                   weights_.Columns(range.begin, range.count),
                   gradients_.Columns(range.begin, range.count),
                   first_moments_.Columns(range.begin, range.count),
                   second_moments_.Columns(range.begin, range.count));
  }
}

}  // namespace lasp::worker
