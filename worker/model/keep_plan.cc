#include <vector>

#include "worker/model/activation_plan.h"

namespace lasp::worker {
namespace {

class KeepPlan : public ActivationPlan {
 public:
  explicit KeepPlan(std::vector<BlockActivations> blocks) : blocks_(std::move(blocks)) {}

  BlockActivations& ForForward(int64_t layer) override { return blocks_[layer]; }

  BlockActivations& ForBackward(int64_t layer) override { return blocks_[layer]; }

 private:
  std::vector<BlockActivations> blocks_;
};

}  // namespace

std::unique_ptr<ActivationPlan> CreateKeepPlan(
    int64_t layers, const std::function<BlockActivations(int64_t layer)>& take) {
  std::vector<BlockActivations> blocks;
  blocks.reserve(static_cast<size_t>(layers));
  for (int64_t layer = 0; layer < layers; ++layer) {
    blocks.push_back(take(layer));
  }
  return std::make_unique<KeepPlan>(std::move(blocks));
}

}  // namespace lasp::worker
