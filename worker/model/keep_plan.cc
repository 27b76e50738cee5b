#include <utility>
#include <vector>

#include "worker/model/activation_plan.h"

namespace lasp::worker {
namespace {

class KeepPlan : public ActivationPlan {
 public:
  KeepPlan(std::vector<BlockActivations> blocks, Recomputation recomputation)
      : blocks_(std::move(blocks)), recomputation_(recomputation) {}

  absl::StatusOr<BlockActivations> ForForward(int64_t layer) override { return blocks_[layer]; }

  absl::Status InputWritten(int64_t /*layer*/) override { return absl::OkStatus(); }

  absl::StatusOr<BlockActivations> ForBackward(int64_t layer) override { return blocks_[layer]; }

  // The last block's forward was the last to write what all share.
  Recomputation Missing(int64_t layer) const override {
    const bool last = layer + 1 == static_cast<int64_t>(blocks_.size());
    return last ? Recomputation::kNothing : recomputation_;
  }

 private:
  const std::vector<BlockActivations> blocks_;
  const Recomputation recomputation_;
};

}  // namespace

std::unique_ptr<ActivationPlan> CreateKeepPlan(std::vector<BlockActivations> blocks,
                                               Recomputation recomputation) {
  return std::make_unique<KeepPlan>(std::move(blocks), recomputation);
}

}  // namespace lasp::worker
