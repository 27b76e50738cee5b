// The device seam: memory and the operations a model is made of, on one device. The model is
// written once against this interface; which device and which precision it runs in is decided where
// the backend is made.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

// Device memory, freed with the object.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual void* data() const = 0;
  virtual int64_t bytes() const = 0;
};

// The geometry of one layer's linear attention on this rank (kernels/linear_attention.h). Inputs
// and outputs are [batch * tokens, heads * size] tensors, a head's columns side by side.
struct AttentionShape {
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;  // of q, k, v and o alike
  bool lrpe = false;
  Tensor slopes;  // [1, heads], kFloat64
  Tensor theta;   // [heads, head_size], kFloat64, where lrpe

  // Rows and columns of a state [batch * heads * state_rows, head_size].
  int64_t state_rows() const { return (lrpe ? 2 : 1) * head_size; }

  int64_t state_matrix_rows() const { return batch * heads * state_rows(); }
};

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double correction1 = 1;
  double correction2 = 1;
  double gradient_scale = 1;
};

// Operations are issued in order by one thread, but for StateHop and StateGradientHop, which a
// communicator's thread may issue beside it. Tensors of numbers have compute_type() unless said
// otherwise. Shapes are the caller's duty. An operation that fails on the device is reported by
// Synchronize, and by every later one. Equations: the header of the same name in kernels/.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual DType compute_type() const = 0;
  // Zeroed and aligned to 64 bytes. RESOURCE_EXHAUSTED names the size.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) = 0;
  // Waits for everything issued so far.
  virtual absl::Status Synchronize() = 0;
  // Prepares a thread other than the first for issuing operations: its kernels use one thread.
  virtual void EnterHelperThread() = 0;

  // Contiguous tensors; complete on return.
  virtual void CopyFromHost(const void* source, Tensor destination) = 0;
  virtual void CopyToHost(Tensor source, void* destination) = 0;
  // destination = source, converted to the destination's type. Contiguous.
  virtual void Convert(Tensor source, Tensor destination) = 0;
  virtual void Fill(double value, Tensor x) = 0;
  // y += factor * x. Contiguous, fp32 or fp64.
  virtual void Axpy(double factor, Tensor x, Tensor y) = 0;

  // c = alpha * op(a) * op(b) + beta * c
  virtual void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
                    Tensor c) = 0;

  // ids: kInt32 [tokens, 1].
  virtual void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) = 0;
  virtual void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                                 Tensor table_gradient) = 0;

  // addend and sum may be empty together; output may be empty. inverse_rms [rows, 1].
  virtual void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                              Tensor inverse_rms) = 0;
  virtual void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient,
                               Tensor addend, Tensor input_gradient) = 0;
  virtual void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output,
                                   Tensor inverse_rms) = 0;
  virtual void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms,
                                    Tensor output_gradient, Tensor input_gradient,
                                    Tensor gate_gradient) = 0;
  virtual void SiluForward(Tensor input, Tensor output) = 0;
  virtual void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) = 0;
  virtual void GluForward(Tensor a, Tensor b, Tensor output) = 0;
  virtual void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient,
                           Tensor b_gradient) = 0;

  // loss_sum: kFloat64 [1, 1], added to. labels: kInt32 [rows, 1]. gradient may be empty, or the
  // logits.
  virtual void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                            Tensor loss_sum) = 0;

  virtual int64_t BlockCount(const AttentionShape& shape) const = 0;
  virtual void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                          Tensor block_states) = 0;
  virtual void IntraOutput(const AttentionShape& shape, Tensor q, Tensor k, Tensor v,
                           Tensor block_states, Tensor output) = 0;
  virtual void AddInterOutput(const AttentionShape& shape, Tensor q, Tensor state_in,
                              Tensor output) = 0;
  virtual void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                                  Tensor state_gradient, Tensor block_state_gradients) = 0;
  // theta_gradient [heads, head_size] may be empty, here and below.
  virtual void IntraGradients(const AttentionShape& shape, Tensor q, Tensor k, Tensor v,
                              Tensor output_gradient, Tensor block_states,
                              Tensor block_state_gradients, Tensor q_gradient, Tensor k_gradient,
                              Tensor v_gradient, Tensor theta_gradient) = 0;
  virtual void AddInterQueryGradients(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                                      Tensor state_in, Tensor q_gradient,
                                      Tensor theta_gradient) = 0;
  // state_in may be empty (first rank).
  virtual void AddInterKeyValueGradients(const AttentionShape& shape, Tensor k, Tensor v,
                                         Tensor state_gradient_in, Tensor k_gradient,
                                         Tensor v_gradient, Tensor state_in,
                                         Tensor theta_gradient) = 0;
  // state_in may be empty: zeros.
  virtual void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) = 0;
  virtual void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                                Tensor state_out) = 0;

  // sum: kFloat64 [1, 1], added to. values: contiguous.
  virtual void SumOfSquares(Tensor values, Tensor sum) = 0;
  // All contiguous and of one size.
  virtual void AdamW(const AdamWStep& step, Tensor parameter, Tensor gradient, Tensor first_moment,
                     Tensor second_moment) = 0;
};

// The CPU: kernels/cpu in fp32, or in fp64 for tests. `threads` for OpenMP and BLAS. Call from the
// thread that will issue the operations.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(DType compute_type, int threads);

}  // namespace lasp::worker
