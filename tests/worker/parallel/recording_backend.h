// A backend that computes nothing and says what it was asked for, in order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/rpc/mutex.h"
#include "worker/device/backend.h"

namespace lasp::worker {

class RecordingBackend : public Backend {
 public:
  // Called with each operation's name as it is issued.
  using Listener = std::function<void(const std::string& operation)>;

  explicit RecordingBackend(Listener listener) : listener_(std::move(listener)) {}

  DType activation_type() const override { return DType::kFloat32; }

  DType accumulation_type() const override { return DType::kFloat32; }

  int64_t logits_at_a_time() const override { return 1; }

  int64_t WorkspaceBytes(const WorkspaceShape&) const override { return 0; }

  void UseWorkspace(Tensor) override {}

  bool wants_rehearsal() const override { return false; }

  void Rehearse(bool) override {}

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t) override {
    return absl::UnimplementedError("nothing to allocate");
  }

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t) override {
    return absl::UnimplementedError("nothing to copy");
  }

  absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t, int64_t) override {
    return absl::UnimplementedError("nothing to copy");
  }

  std::optional<int64_t> FreeBytes() override { return std::nullopt; }

  absl::Status Synchronize() override { return absl::OkStatus(); }

  Phase EnterPhase(Phase) override { return Phase::kOther; }

  PhaseSeconds TakePhaseSeconds() override { return {}; }

  void EnterHelperThread() override {}

  void CopyFromHost(const void*, Tensor) override {}

  void CopyToHost(Tensor, void*) override {}

  void Convert(Tensor, Tensor) override {}

  void Copy(Tensor, Tensor) override { listener_("Copy"); }

  void Fill(double, Tensor) override {}

  void Axpy(double, Tensor, Tensor) override {}

  void Gemm(bool, Tensor, bool, Tensor, double, Tensor) override {}

  void EmbeddingForward(double, Tensor, Tensor, Tensor) override {}

  void EmbeddingBackward(double, Tensor, Tensor, Tensor) override {}

  void RmsNormForward(Tensor, Tensor, Tensor, Tensor, Tensor) override {}

  void RmsNormBackward(Tensor, Tensor, Tensor, Tensor, Tensor) override {}

  void GatedRmsNormForward(Tensor, Tensor, Tensor, Tensor) override {}

  void GatedRmsNormBackward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) override {}

  void SiluForward(Tensor, Tensor) override {}

  void SiluBackward(Tensor, Tensor, Tensor) override {}

  void GluForward(Tensor, Tensor, Tensor) override {}

  void GluBackward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) override {}

  void CrossEntropy(Tensor, Tensor, double, Tensor, Tensor) override {}

  int64_t SavedStateCount(const AttentionShape&) const override { return 1; }

  void LocalState(const AttentionShape&, Tensor, Tensor, Tensor, Tensor) override {
    listener_("LocalState");
  }

  void BeginOutput(const AttentionShape&, const AttentionForward&) override {
    listener_("BeginOutput");
  }

  void EndOutput(const AttentionShape&, const AttentionForward&) override {
    listener_("EndOutput");
  }

  void LocalStateGradient(const AttentionShape&, Tensor, Tensor, Tensor, Tensor) override {
    listener_("LocalStateGradient");
  }

  void BeginGradients(const AttentionShape&, const AttentionBackward&) override {
    listener_("BeginGradients");
  }

  void EndGradients(const AttentionShape&, const AttentionBackward&) override {
    listener_("EndGradients");
  }

  void StateHop(const AttentionShape&, Tensor, Tensor, Tensor) override { listener_("StateHop"); }

  void StateGradientHop(const AttentionShape&, Tensor, Tensor, Tensor) override {
    listener_("StateGradientHop");
  }

  void SumOfSquares(Tensor, Tensor) override {}

  void JudgeUpdate(const AdamWConstants&, double, Tensor, Tensor, Tensor) override {}

  void AdamW(const AdamWConstants&, Tensor, const std::vector<AdamWTensors>&) override {}

 private:
  const Listener listener_;
};

}  // namespace lasp::worker
