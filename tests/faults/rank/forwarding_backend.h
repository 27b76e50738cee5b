// A backend that hands everything on to another one, for those that change a little of it.
#pragma once

#include <memory>
#include <vector>

#include "worker/device/backend.h"

namespace lasp::worker {

class ForwardingBackend : public Backend {
 public:
  // `inner` must outlive this.
  explicit ForwardingBackend(Backend* inner) : inner_(*inner) {}

  DType activation_type() const override { return inner_.activation_type(); }

  DType accumulation_type() const override { return inner_.accumulation_type(); }

  int64_t logits_at_a_time() const override { return inner_.logits_at_a_time(); }

  int64_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    return inner_.WorkspaceBytes(shape);
  }

  void UseWorkspace(Tensor workspace) override { inner_.UseWorkspace(workspace); }

  bool wants_rehearsal() const override { return inner_.wants_rehearsal(); }

  void Rehearse(bool rehearsing) override { inner_.Rehearse(rehearsing); }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return inner_.Allocate(bytes);
  }

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) override {
    return inner_.CreateSnapshot(bytes);
  }

  absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t slots,
                                                         int64_t slot_bytes) override {
    return inner_.CreateStash(slots, slot_bytes);
  }

  std::optional<int64_t> FreeBytes() override { return inner_.FreeBytes(); }

  absl::Status Synchronize() override { return inner_.Synchronize(); }

  Phase EnterPhase(Phase phase) override { return inner_.EnterPhase(phase); }

  PhaseSeconds TakePhaseSeconds() override { return inner_.TakePhaseSeconds(); }

  void EnterHelperThread() override { inner_.EnterHelperThread(); }

  void CopyFromHost(const void* source, Tensor destination) override {
    inner_.CopyFromHost(source, destination);
  }

  void CopyToHost(Tensor source, void* destination) override {
    inner_.CopyToHost(source, destination);
  }

  void Convert(Tensor source, Tensor destination) override { inner_.Convert(source, destination); }

  void Copy(Tensor source, Tensor destination) override { inner_.Copy(source, destination); }

  void Fill(double value, Tensor x) override { inner_.Fill(value, x); }

  void Axpy(double factor, Tensor x, Tensor y) override { inner_.Axpy(factor, x, y); }

  void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
            Tensor c) override {
    inner_.Gemm(transpose_a, a, transpose_b, b, beta, c);
  }

  void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) override {
    inner_.EmbeddingForward(scale, ids, table, output);
  }

  void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                         Tensor table_gradient) override {
    inner_.EmbeddingBackward(scale, ids, output_gradient, table_gradient);
  }

  void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                      Tensor inverse_rms) override {
    inner_.RmsNormForward(input, addend, sum, output, inverse_rms);
  }

  void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient, Tensor addend,
                       Tensor input_gradient) override {
    inner_.RmsNormBackward(input, inverse_rms, output_gradient, addend, input_gradient);
  }

  void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) override {
    inner_.GatedRmsNormForward(input, gate, output, inverse_rms);
  }

  void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                            Tensor input_gradient, Tensor gate_gradient) override {
    inner_.GatedRmsNormBackward(input, gate, inverse_rms, output_gradient, input_gradient,
                                gate_gradient);
  }

  void SiluForward(Tensor input, Tensor output) override { inner_.SiluForward(input, output); }

  void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override {
    inner_.SiluBackward(input, output_gradient, input_gradient);
  }

  void GluForward(Tensor a, Tensor b, Tensor output) override { inner_.GluForward(a, b, output); }

  void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient, Tensor b_gradient,
                   Tensor product) override {
    inner_.GluBackward(a, b, output_gradient, a_gradient, b_gradient, product);
  }

  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override {
    inner_.CrossEntropy(logits, labels, gradient_scale, gradient, loss_sum);
  }

  int64_t SavedStateCount(const AttentionShape& shape) const override {
    return inner_.SavedStateCount(shape);
  }

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    inner_.LocalState(shape, k, v, state, saved_states);
  }

  void BeginOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    inner_.BeginOutput(shape, tensors);
  }

  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    inner_.EndOutput(shape, tensors);
  }

  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override {
    inner_.LocalStateGradient(shape, q, output_gradient, state_gradient, saved_gradients);
  }

  void BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    inner_.BeginGradients(shape, tensors);
  }

  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    inner_.EndGradients(shape, tensors);
  }

  void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                Tensor state_out) override {
    inner_.StateHop(shape, state_in, local, state_out);
  }

  void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) override {
    inner_.StateGradientHop(shape, state_in, local, state_out);
  }

  LeftProduct* left_product() override { return inner_.left_product(); }

  LinearTransformerOps* linear_transformer() override { return inner_.linear_transformer(); }

  SplitNormOps* split_norm() override { return inner_.split_norm(); }

  SoftmaxOps* softmax() override { return inner_.softmax(); }

  void SumOfSquares(Tensor values, Tensor sum) override { inner_.SumOfSquares(values, sum); }

  void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                   Tensor sum_of_squares, Tensor control) override {
    inner_.JudgeUpdate(constants, max_gradient_norm, loss, sum_of_squares, control);
  }

  void AdamW(const AdamWConstants& constants, Tensor control,
             const std::vector<AdamWTensors>& tensors) override {
    inner_.AdamW(constants, control, tensors);
  }

 protected:
  Backend& inner() { return inner_; }

 private:
  Backend& inner_;
};

}  // namespace lasp::worker
