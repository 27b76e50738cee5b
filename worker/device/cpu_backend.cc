// The CPU behind the device seam: each operation forwards to the kernel of the same name.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "absl/strings/str_cat.h"
#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/gated_rms_norm.h"
#include "kernels/gemm.h"
#include "kernels/global_norm.h"
#include "kernels/glu.h"
#include "kernels/linear_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/silu.h"
#include "kernels/threads.h"
#include "kernels/update_control.h"
#include "kernels/vector_ops.h"
#include "worker/device/backend.h"
#include "worker/device/host_phase_clock.h"

namespace lasp::worker {
namespace {

namespace cpu = ::lasp::kernels::cpu;

constexpr size_t kAlignment = 64;

class HostBuffer : public DeviceBuffer {
 public:
  HostBuffer(void* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  ~HostBuffer() override { std::free(data_); }

  void* data() const override { return data_; }

  int64_t bytes() const override { return bytes_; }

 private:
  void* const data_;
  const int64_t bytes_;
};

template <typename T>
constexpr DType TypeOf() {
  return std::is_same_v<T, double> ? DType::kFloat64 : DType::kFloat32;
}

template <typename T>
class CpuBackend : public Backend {
 public:
  DType activation_type() const override { return TypeOf<T>(); }

  DType accumulation_type() const override { return TypeOf<T>(); }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    const size_t rounded =
        (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    void* data = std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", bytes, " bytes of memory for this rank"));
    }
    std::memset(data, 0, rounded);
    return std::make_unique<HostBuffer>(data, bytes);
  }

  absl::Status Synchronize() override { return absl::OkStatus(); }

  Phase EnterPhase(Phase phase) override { return phases_.Enter(phase); }

  PhaseSeconds TakePhaseSeconds() override { return phases_.Take(); }

  void EnterHelperThread() override { cpu::SetCallerThreads(1); }

  void CopyFromHost(const void* source, Tensor destination) override {
    std::memcpy(destination.data, source, static_cast<size_t>(destination.bytes()));
  }

  void CopyToHost(Tensor source, void* destination) override {
    std::memcpy(destination, source.data, static_cast<size_t>(source.bytes()));
  }

  void Convert(Tensor source, Tensor destination) override {
    for (int64_t i = 0; i < source.count(); ++i) {
      const double value = source.dtype == DType::kFloat64
                               ? static_cast<const double*>(source.data)[i]
                               : static_cast<const float*>(source.data)[i];
      if (destination.dtype == DType::kFloat64) {
        static_cast<double*>(destination.data)[i] = value;
      } else {
        static_cast<float*>(destination.data)[i] = static_cast<float>(value);
      }
    }
  }

  void Fill(double value, Tensor x) override {
    if (x.dtype == DType::kFloat64) {
      cpu::Fill<double>(x.count(), value, static_cast<double*>(x.data));
    } else {
      cpu::Fill<float>(x.count(), static_cast<float>(value), static_cast<float*>(x.data));
    }
  }

  void Axpy(double factor, Tensor x, Tensor y) override {
    if (x.dtype == DType::kFloat64) {
      cpu::Axpy<double>(x.count(), factor, static_cast<const double*>(x.data),
                        static_cast<double*>(y.data));
    } else {
      cpu::Axpy<float>(x.count(), static_cast<float>(factor), static_cast<const float*>(x.data),
                       static_cast<float*>(y.data));
    }
  }

  void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
            Tensor c) override {
    cpu::Gemm<T>({.transpose_a = transpose_a,
                  .transpose_b = transpose_b,
                  .m = c.rows,
                  .n = c.columns,
                  .k = transpose_a ? a.rows : a.columns,
                  .alpha = 1,
                  .a = In(a),
                  .a_stride = a.row_stride,
                  .b = In(b),
                  .b_stride = b.row_stride,
                  .beta = static_cast<T>(beta),
                  .c = Out(c),
                  .c_stride = c.row_stride});
  }

  void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) override {
    cpu::EmbeddingForward<T>({.tokens = output.rows,
                              .hidden_size = output.columns,
                              .scale = scale,
                              .ids = Ids(ids),
                              .embedding = In(table),
                              .output = Out(output)});
  }

  void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                         Tensor table_gradient) override {
    cpu::EmbeddingBackward<T>({.tokens = output_gradient.rows,
                               .hidden_size = output_gradient.columns,
                               .scale = scale,
                               .ids = Ids(ids),
                               .output_gradient = In(output_gradient),
                               .embedding_gradient = Out(table_gradient)});
  }

  void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                      Tensor inverse_rms) override {
    cpu::RmsNormForward<T>({.rows = input.rows,
                            .width = input.columns,
                            .input = In(input),
                            .addend = In(addend),
                            .sum = Out(sum),
                            .output = Out(output),
                            .inverse_rms = Out(inverse_rms)});
  }

  void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient, Tensor addend,
                       Tensor input_gradient) override {
    cpu::RmsNormBackward<T>({.rows = input.rows,
                             .width = input.columns,
                             .input = In(input),
                             .inverse_rms = In(inverse_rms),
                             .output_gradient = In(output_gradient),
                             .addend = In(addend),
                             .input_gradient = Out(input_gradient)});
  }

  void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) override {
    cpu::GatedRmsNormForward<T>({.rows = input.rows,
                                 .width = input.columns,
                                 .input = In(input),
                                 .gate = In(gate),
                                 .gate_stride = gate.row_stride,
                                 .output = Out(output),
                                 .inverse_rms = Out(inverse_rms)});
  }

  void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                            Tensor input_gradient, Tensor gate_gradient) override {
    cpu::GatedRmsNormBackward<T>({.rows = input.rows,
                                  .width = input.columns,
                                  .input = In(input),
                                  .gate = In(gate),
                                  .gate_stride = gate.row_stride,
                                  .inverse_rms = In(inverse_rms),
                                  .output_gradient = In(output_gradient),
                                  .input_gradient = Out(input_gradient),
                                  .gate_gradient = Out(gate_gradient),
                                  .gate_gradient_stride = gate_gradient.row_stride});
  }

  void SiluForward(Tensor input, Tensor output) override {
    cpu::SiluForward<T>({.rows = input.rows,
                         .width = input.columns,
                         .input = In(input),
                         .input_stride = input.row_stride,
                         .output = Out(output),
                         .output_stride = output.row_stride});
  }

  void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override {
    cpu::SiluBackward<T>({.rows = input.rows,
                          .width = input.columns,
                          .input = In(input),
                          .input_stride = input.row_stride,
                          .output_gradient = In(output_gradient),
                          .output_gradient_stride = output_gradient.row_stride,
                          .input_gradient = Out(input_gradient),
                          .input_gradient_stride = input_gradient.row_stride});
  }

  void GluForward(Tensor a, Tensor b, Tensor output) override {
    cpu::GluForward<T>({.rows = a.rows,
                        .width = a.columns,
                        .a = In(a),
                        .a_stride = a.row_stride,
                        .b = In(b),
                        .b_stride = b.row_stride,
                        .output = Out(output)});
  }

  void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient,
                   Tensor b_gradient) override {
    cpu::GluBackward<T>({.rows = a.rows,
                         .width = a.columns,
                         .a = In(a),
                         .a_stride = a.row_stride,
                         .b = In(b),
                         .b_stride = b.row_stride,
                         .output_gradient = In(output_gradient),
                         .a_gradient = Out(a_gradient),
                         .a_gradient_stride = a_gradient.row_stride,
                         .b_gradient = Out(b_gradient),
                         .b_gradient_stride = b_gradient.row_stride});
  }

  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override {
    cpu::CrossEntropy<T>({.rows = logits.rows,
                          .vocabulary = logits.columns,
                          .logits = In(logits),
                          .logits_stride = logits.row_stride,
                          .labels = Ids(labels),
                          .gradient_scale = gradient_scale,
                          .gradient = Out(gradient),
                          .gradient_stride = gradient.row_stride,
                          .loss_sum = static_cast<double*>(loss_sum.data)});
  }

  int64_t SavedStateCount(const AttentionShape& shape) const override {
    return kernels::BlockCount(KernelShape(shape));
  }

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    cpu::LocalState<T>({.shape = KernelShape(shape),
                        .k = HeadsIn(shape, k),
                        .v = HeadsIn(shape, v),
                        .state = Out(state),
                        .block_states = Out(saved_states)});
  }

  void BeginOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    cpu::IntraOutput<T>({.shape = KernelShape(shape),
                         .q = HeadsIn(shape, tensors.q),
                         .k = HeadsIn(shape, tensors.k),
                         .v = HeadsIn(shape, tensors.v),
                         .block_states = In(tensors.saved_states),
                         .output = HeadsOut(shape, tensors.output)});
  }

  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    if (tensors.state_in.empty()) {
      return;
    }
    cpu::AddInterOutput<T>({.shape = KernelShape(shape),
                            .q = HeadsIn(shape, tensors.q),
                            .state_in = In(tensors.state_in),
                            .output = HeadsOut(shape, tensors.output)});
  }

  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override {
    cpu::LocalStateGradient<T>({.shape = KernelShape(shape),
                                .q = HeadsIn(shape, q),
                                .output_gradient = HeadsIn(shape, output_gradient),
                                .state_gradient = Out(state_gradient),
                                .block_state_gradients = Out(saved_gradients)});
  }

  void BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    cpu::IntraGradients<T>({.shape = KernelShape(shape),
                            .q = HeadsIn(shape, tensors.q),
                            .k = HeadsIn(shape, tensors.k),
                            .v = HeadsIn(shape, tensors.v),
                            .output_gradient = HeadsIn(shape, tensors.output_gradient),
                            .block_states = In(tensors.saved_states),
                            .block_state_gradients = In(tensors.saved_gradients),
                            .q_gradient = HeadsOut(shape, tensors.q_gradient),
                            .k_gradient = HeadsOut(shape, tensors.k_gradient),
                            .v_gradient = HeadsOut(shape, tensors.v_gradient),
                            .theta_gradient = Out(tensors.theta_gradient)});
    if (tensors.state_in.empty()) {
      return;
    }
    cpu::AddInterQueryGradients<T>({.shape = KernelShape(shape),
                                    .q = HeadsIn(shape, tensors.q),
                                    .output_gradient = HeadsIn(shape, tensors.output_gradient),
                                    .state_in = In(tensors.state_in),
                                    .q_gradient = HeadsOut(shape, tensors.q_gradient),
                                    .theta_gradient = Out(tensors.theta_gradient)});
  }

  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    if (tensors.state_gradient_in.empty()) {
      return;
    }
    cpu::AddInterKeyValueGradients<T>({.shape = KernelShape(shape),
                                       .k = HeadsIn(shape, tensors.k),
                                       .v = HeadsIn(shape, tensors.v),
                                       .state_gradient_in = In(tensors.state_gradient_in),
                                       .k_gradient = HeadsOut(shape, tensors.k_gradient),
                                       .v_gradient = HeadsOut(shape, tensors.v_gradient),
                                       .state_in = In(tensors.state_in),
                                       .theta_gradient = Out(tensors.theta_gradient)});
  }

  void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                Tensor state_out) override {
    cpu::StateHop<T>({.shape = KernelShape(shape),
                      .state_in = In(state_in),
                      .local = In(local),
                      .state_out = Out(state_out)});
  }

  void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) override {
    cpu::StateGradientHop<T>({.shape = KernelShape(shape),
                              .state_in = In(state_in),
                              .local = In(local),
                              .state_out = Out(state_out)});
  }

  void SumOfSquares(Tensor values, Tensor sum) override {
    cpu::SumOfSquares<T>(
        {.count = values.count(), .values = In(values), .sum = static_cast<double*>(sum.data)});
  }

  void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                   Tensor sum_of_squares, Tensor control) override {
    cpu::JudgeUpdate({.max_gradient_norm = max_gradient_norm,
                      .beta1 = constants.beta1,
                      .beta2 = constants.beta2,
                      .loss = static_cast<const double*>(loss.data),
                      .sum_of_squares = static_cast<const double*>(sum_of_squares.data),
                      .control = static_cast<kernels::UpdateControl*>(control.data)});
  }

  void AdamW(const AdamWConstants& constants, Tensor control,
             const std::vector<AdamWTensors>& tensors) override {
    for (const AdamWTensors& range : tensors) {
      cpu::AdamW<T>({.count = range.master.count(),
                     .parameter = Out(range.master),
                     .gradient = In(range.gradient),
                     .first_moment = Out(range.first_moment),
                     .second_moment = Out(range.second_moment),
                     .beta1 = constants.beta1,
                     .beta2 = constants.beta2,
                     .epsilon = constants.epsilon,
                     .weight_decay = range.weight_decay,
                     .control = static_cast<const kernels::UpdateControl*>(control.data)});
    }
  }

 private:
  static const T* In(Tensor tensor) { return static_cast<const T*>(tensor.data); }

  static T* Out(Tensor tensor) { return static_cast<T*>(tensor.data); }

  static const int32_t* Ids(Tensor tensor) { return static_cast<const int32_t*>(tensor.data); }

  static kernels::LinearAttentionShape KernelShape(const AttentionShape& shape) {
    return {.batch = shape.batch,
            .tokens = shape.tokens,
            .heads = shape.heads,
            .key_size = shape.head_size,
            .value_size = shape.head_size,
            .slopes = static_cast<const double*>(shape.slopes.data),
            .theta = shape.lrpe ? static_cast<const double*>(shape.theta.data) : nullptr};
  }

  static kernels::HeadsView<const T> HeadsIn(const AttentionShape& shape, Tensor tensor) {
    return {In(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
  }

  static kernels::HeadsView<T> HeadsOut(const AttentionShape& shape, Tensor tensor) {
    return {Out(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
  }

  HostPhaseClock phases_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(DType type, int threads) {
  if (threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the CPU backend needs at least 1 thread, not ", threads));
  }
  cpu::SetThreads(threads);
  switch (type) {
    case DType::kFloat32:
      return std::make_unique<CpuBackend<float>>();
    case DType::kFloat64:
      return std::make_unique<CpuBackend<double>>();
    case DType::kBFloat16:
    case DType::kInt32:
      break;
  }
  return absl::InvalidArgumentError("the CPU backend computes in fp32 or fp64");
}

}  // namespace lasp::worker
