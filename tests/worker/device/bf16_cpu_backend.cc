#include "tests/worker/device/bf16_cpu_backend.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "tests/worker/device/rounding.h"
#include "tests/worker/device/rounding_attention.h"

namespace lasp::worker {
namespace {

uint16_t* Row(Tensor tensor, int64_t row) {
  return static_cast<uint16_t*>(tensor.Rows(row, 1).data);
}

// The values of a tensor in fp32, in memory of its own; a tensor of another type, or none, itself.
class Wide {
 public:
  explicit Wide(Tensor narrow) : narrow_(narrow), tensor_(narrow) {
    if (narrow.empty() || narrow.dtype != DType::kBFloat16) {
      return;
    }
    values_.resize(static_cast<size_t>(narrow.count()));
    float* to = values_.data();
    for (int64_t row = 0; row < narrow.rows; ++row) {
      const uint16_t* const from = Row(narrow, row);
      for (int64_t column = 0; column < narrow.columns; ++column) {
        *to++ = FromBf16(from[column]);
      }
    }
    tensor_ = {values_.data(), DType::kFloat32, narrow.rows, narrow.columns, narrow.columns};
  }

  Wide(const Wide&) = delete;
  Wide& operator=(const Wide&) = delete;

  Tensor tensor() const { return tensor_; }

  operator Tensor() const { return tensor_; }  // NOLINT(google-explicit-constructor)

 protected:
  void Store() {
    const float* from = values_.data();
    for (int64_t row = 0; row < narrow_.rows && !values_.empty(); ++row) {
      uint16_t* const to = Row(narrow_, row);
      for (int64_t column = 0; column < narrow_.columns; ++column) {
        to[column] = ToBf16(*from++);
      }
    }
  }

 private:
  const Tensor narrow_;
  Tensor tensor_;
  std::vector<float> values_;
};

// Rounds back into the tensor at the end of its life: after the operation, which may have read the
// same memory.
class Result : public Wide {
 public:
  using Wide::Wide;

  ~Result() { Store(); }
};

class Bf16CpuBackend : public Backend {
 public:
  explicit Bf16CpuBackend(std::unique_ptr<Backend> fp32) : fp32_(std::move(fp32)) {}

  DType activation_type() const override { return DType::kBFloat16; }

  DType accumulation_type() const override { return DType::kFloat32; }

  int64_t logits_at_a_time() const override { return fp32_->logits_at_a_time(); }

  int64_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    return fp32_->WorkspaceBytes(shape);
  }

  void UseWorkspace(Tensor workspace) override { fp32_->UseWorkspace(workspace); }

  bool wants_rehearsal() const override { return false; }

  void Rehearse(bool rehearsing) override { fp32_->Rehearse(rehearsing); }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return fp32_->Allocate(bytes);
  }

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) override {
    return fp32_->CreateSnapshot(bytes);
  }

  absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t slots,
                                                         int64_t slot_bytes) override {
    return fp32_->CreateStash(slots, slot_bytes);
  }

  std::optional<int64_t> FreeBytes() override { return fp32_->FreeBytes(); }

  absl::Status Synchronize() override { return fp32_->Synchronize(); }

  Phase EnterPhase(Phase phase) override { return fp32_->EnterPhase(phase); }

  PhaseSeconds TakePhaseSeconds() override { return fp32_->TakePhaseSeconds(); }

  void EnterHelperThread() override { fp32_->EnterHelperThread(); }

  void CopyFromHost(const void* source, Tensor destination) override {
    fp32_->CopyFromHost(source, destination);
  }

  void CopyToHost(Tensor source, void* destination) override {
    fp32_->CopyToHost(source, destination);
  }

  void Convert(Tensor source, Tensor destination) override {
    fp32_->Convert(Wide(source), Result(destination));
  }

  void Copy(Tensor source, Tensor destination) override { fp32_->Copy(source, destination); }

  void Fill(double value, Tensor x) override { fp32_->Fill(value, Result(x)); }

  void Axpy(double factor, Tensor x, Tensor y) override { fp32_->Axpy(factor, Wide(x), Result(y)); }

  void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
            Tensor c) override {
    fp32_->Gemm(transpose_a, Wide(a), transpose_b, Wide(b), beta, Result(c));
  }

  void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) override {
    fp32_->EmbeddingForward(scale, ids, Wide(table), Result(output));
  }

  void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                         Tensor table_gradient) override {
    fp32_->EmbeddingBackward(scale, ids, Wide(output_gradient), table_gradient);
  }

  void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                      Tensor inverse_rms) override {
    if (addend.empty()) {
      fp32_->RmsNormForward(Wide(input), {}, {}, Result(output), inverse_rms);
      return;
    }
    // What is normalised is the sum as it is kept.
    fp32_->RmsNormForward(Wide(input), Wide(addend), Result(sum), {}, inverse_rms);
    fp32_->RmsNormForward(Wide(sum), {}, {}, Result(output), inverse_rms);
  }

  void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient, Tensor addend,
                       Tensor input_gradient) override {
    fp32_->RmsNormBackward(Wide(input), inverse_rms, Wide(output_gradient), Wide(addend),
                           Result(input_gradient));
  }

  void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) override {
    fp32_->GatedRmsNormForward(Wide(input), Wide(gate), Result(output), inverse_rms);
  }

  void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                            Tensor input_gradient, Tensor gate_gradient) override {
    fp32_->GatedRmsNormBackward(Wide(input), Wide(gate), inverse_rms, Wide(output_gradient),
                                Result(input_gradient), Result(gate_gradient));
  }

  void SiluForward(Tensor input, Tensor output) override {
    fp32_->SiluForward(Wide(input), Result(output));
  }

  void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override {
    fp32_->SiluBackward(Wide(input), Wide(output_gradient), Result(input_gradient));
  }

  void GluForward(Tensor a, Tensor b, Tensor output) override {
    fp32_->GluForward(Wide(a), Wide(b), Result(output));
  }

  void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient, Tensor b_gradient,
                   Tensor product) override {
    fp32_->GluBackward(Wide(a), Wide(b), Wide(output_gradient), Result(a_gradient),
                       Result(b_gradient), Result(product));
  }

  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override {
    fp32_->CrossEntropy(Wide(logits), labels, gradient_scale, Result(gradient), loss_sum);
  }

  int64_t SavedStateCount(const AttentionShape& shape) const override {
    return fp32_->SavedStateCount(shape);
  }

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    RoundingLocalState(shape, k, v, state, saved_states);
  }

  void BeginOutput(const AttentionShape& /*shape*/, const AttentionForward& /*tensors*/) override {}

  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    RoundingOutput(shape, tensors);
  }

  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override {
    RoundingLocalStateGradient(shape, q, output_gradient, state_gradient, saved_gradients);
  }

  void BeginGradients(const AttentionShape& /*shape*/,
                      const AttentionBackward& /*tensors*/) override {}

  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    RoundingGradients(shape, tensors);
  }

  void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                Tensor state_out) override {
    fp32_->StateHop(shape, state_in, local, state_out);
  }

  void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) override {
    fp32_->StateGradientHop(shape, state_in, local, state_out);
  }

  void SumOfSquares(Tensor values, Tensor sum) override { fp32_->SumOfSquares(values, sum); }

  void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                   Tensor sum_of_squares, Tensor control) override {
    fp32_->JudgeUpdate(constants, max_gradient_norm, loss, sum_of_squares, control);
  }

  void AdamW(const AdamWConstants& constants, Tensor control,
             const std::vector<AdamWTensors>& tensors) override {
    fp32_->AdamW(constants, control, tensors);
    for (const AdamWTensors& range : tensors) {
      Convert(range.master, range.weight);
    }
  }

 private:
  const std::unique_ptr<Backend> fp32_;
};

}  // namespace

std::unique_ptr<Backend> CreateBf16CpuBackend(int threads) {
  return std::make_unique<Bf16CpuBackend>(CreateCpuBackend(DType::kFloat32, threads).value());
}

}  // namespace lasp::worker
