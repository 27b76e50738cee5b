// The seams of a rank with faults put into them.
#pragma once

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tests/faults/rank/fault_plan.h"
#include "tests/faults/rank/forwarding_backend.h"
#include "worker/device/host_snapshot.h"

namespace lasp::worker {

// Its data are asked for where a checkpoint's shard is about to be written.
class FaultySnapshot : public HostSnapshot {
 public:
  FaultySnapshot(std::unique_ptr<HostSnapshot> inner, FaultPlan* plan)
      : inner_(std::move(inner)), plan_(*plan) {}

  absl::Status Take(const std::vector<Tensor>& sources) override { return inner_->Take(sources); }

  absl::Status HoldDevice() override { return inner_->HoldDevice(); }

  absl::Status Wait(absl::Duration timeout) override { return inner_->Wait(timeout); }

  const char* data() const override {
    plan_.Reach(FaultPlace::kCheckpointWrite);
    if (plan_.HangsAt(FaultPlace::kCheckpointWrite)) {
      HangForever();
    }
    return inner_->data();
  }

 private:
  const std::unique_ptr<HostSnapshot> inner_;
  FaultPlan& plan_;
};

// The phase that a step has come to, as the communicators beside it are to see it.
class StepPlace {
 public:
  void Enter(Phase phase) {
    if (phase == Phase::kForward || phase == Phase::kBackward || phase == Phase::kGradientSync) {
      phase_ = phase;
    }
  }

  FaultPlace place() const {
    return phase_ == Phase::kForward    ? FaultPlace::kForward
           : phase_ == Phase::kBackward ? FaultPlace::kBackward
                                        : FaultPlace::kGradientSync;
  }

 private:
  Phase phase_ = Phase::kForward;
};

class FaultyBackend : public ForwardingBackend {
 public:
  // All must outlive this.
  FaultyBackend(Backend* inner, FaultPlan* plan, StepPlace* step)
      : ForwardingBackend(inner), plan_(*plan), step_(*step) {}

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) override {
    absl::StatusOr<std::unique_ptr<HostSnapshot>> snapshot = inner().CreateSnapshot(bytes);
    if (!snapshot.ok()) {
      return snapshot;
    }
    return std::make_unique<FaultySnapshot>(*std::move(snapshot), &plan_);
  }

  Phase EnterPhase(Phase phase) override {
    step_.Enter(phase);
    if (phase == Phase::kGradientSync) {
      plan_.Reach(FaultPlace::kGradientSync);
    }
    return inner().EnterPhase(phase);
  }

  // The last that a step does.
  PhaseSeconds TakePhaseSeconds() override {
    plan_.StepDone();
    return inner().TakePhaseSeconds();
  }

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    inner().LocalState(shape, k, v, state, saved_states);
    plan_.Reach(FaultPlace::kForward);
  }

  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override {
    inner().CrossEntropy(logits, labels, gradient_scale, gradient, loss_sum);
    if (plan_.SpoilsAt(FaultPlace::kForward)) {
      inner().Fill(std::numeric_limits<double>::quiet_NaN(), loss_sum);
    }
  }

  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override {
    inner().LocalStateGradient(shape, q, output_gradient, state_gradient, saved_gradients);
    plan_.Reach(FaultPlace::kBackward);
  }

  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    inner().EndGradients(shape, tensors);
    if (plan_.SpoilsAt(FaultPlace::kBackward)) {
      inner().Fill(std::numeric_limits<double>::quiet_NaN(), tensors.q_gradient);
    }
  }

 private:
  FaultPlan& plan_;
  StepPlace& step_;
};

}  // namespace lasp::worker
