#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/model/activation_plan.h"

namespace lasp::worker {
namespace {

class OffloadPlan : public ActivationPlan {
 public:
  OffloadPlan(std::vector<BlockActivations> blocks, HostStash* stash)
      : blocks_(std::move(blocks)), stash_(stash) {}

  absl::StatusOr<BlockActivations> ForForward(int64_t layer) override {
    if (layer >= 2) {
      // What lies there has gone.
      LASP_RETURN_IF_ERROR(stash_->Hold(layer - 2));
    }
    return blocks_[layer];
  }

  absl::Status InputWritten(int64_t layer) override {
    // The last two stay until the backward has come to them.
    return layer + 2 < layers() ? stash_->Store(layer, blocks_[layer].mixer_input)
                                : absl::OkStatus();
  }

  absl::StatusOr<BlockActivations> ForBackward(int64_t layer) override {
    if (layer + 2 < layers()) {
      LASP_RETURN_IF_ERROR(stash_->Hold(layer));
    }
    if (layer >= 1 && layer + 1 < layers()) {
      // Under the work on this block, into the place of the one behind it.
      LASP_RETURN_IF_ERROR(stash_->Load(layer - 1, blocks_[layer - 1].mixer_input));
    }
    return blocks_[layer];
  }

  Recomputation Missing(int64_t layer) const override {
    return layer + 1 == layers() ? Recomputation::kNothing : Recomputation::kBlock;
  }

 private:
  int64_t layers() const { return static_cast<int64_t>(blocks_.size()); }

  const std::vector<BlockActivations> blocks_;
  HostStash* const stash_;
};

}  // namespace

std::unique_ptr<ActivationPlan> CreateOffloadPlan(std::vector<BlockActivations> blocks,
                                                  HostStash* stash) {
  return std::make_unique<OffloadPlan>(std::move(blocks), stash);
}

}  // namespace lasp::worker
