// The device seam: memory and the operations a model is made of, on one device. The model is
// written once against this interface; which device and which precision it runs in is decided where
// the backend is made.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/host_snapshot.h"
#include "worker/device/host_stash.h"
#include "worker/device/linear_transformer_ops.h"
#include "worker/device/phase.h"
#include "worker/device/softmax_ops.h"
#include "worker/device/split_norm_ops.h"
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
  // Outputs are divided by the sums of their weights (kernels/attention_normaliser.h). Then there
  // is neither decay nor LRPE.
  bool normalised = false;
  Tensor slopes;  // [1, heads], kFloat64
  Tensor theta;   // [heads, head_size], kFloat64, where lrpe
  // Where documents start in the slice, a bit a token: kInt32 [batch, 2 * ceil(tokens / 64)],
  // contiguous. Empty: none starts. Of a layer of softmax attention, in the whole sequences.
  Tensor document_marks = {};
  // Of a layer of softmax attention, which has none of the above but sizes: heads of keys and
  // values (0: linear attention), and the position of each sequence's first token here.
  int64_t kv_heads = 0;
  int64_t first_position = 0;

  // Of one head's sum of products k^T v.
  int64_t state_rows() const { return (lrpe ? 2 : 1) * head_size; }

  // Of all heads': what the parts of an attention keep of a state.
  int64_t product_rows() const { return batch * heads * state_rows(); }

  // A state is [state_matrix_rows, head_size]: the sums of products, and behind them where the
  // layer is normalised a row a head, its sum of keys.
  int64_t state_matrix_rows() const { return product_rows() + (normalised ? batch * heads : 0); }

  // The sums of keys [batch * heads, head_size] of a state, or none of none.
  Tensor KeySumsOf(Tensor state) const {
    return state.empty() ? Tensor{} : state.Rows(product_rows(), batch * heads);
  }
};

// The largest operands of a step.
struct WorkspaceShape {
  int64_t rows = 0;  // tokens at a time
  int64_t hidden_size = 0;
  AttentionShape attention = {};  // of the layer with the largest states
};

// What one layer's forward works on. state_in is KV_in; empty: zeros.
struct AttentionForward {
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor saved_states;  // as LocalState left them
  Tensor state_in;
  Tensor output;
};

struct AttentionBackward {
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor output_gradient;
  Tensor saved_states;       // as the forward left them
  Tensor saved_gradients;    // as LocalStateGradient left them
  Tensor state_in;           // as in the forward
  Tensor state_gradient_in;  // dKV_in; empty: zeros
  Tensor q_gradient;
  Tensor k_gradient;
  Tensor v_gradient;
  Tensor theta_gradient;  // [heads, head_size]; empty: not wanted
};

// A slice of queries against the keys and values of a slice `distance` tokens before it.
struct LeftProductForward {
  int64_t distance = 0;
  Tensor q;
  Tensor k;
  Tensor v;
  bool adds = false;  // to the output
  Tensor output;
  Tensor scratch;  // LeftProduct::ScratchElements; empty where that is 0
};

struct LeftProductBackward {
  int64_t distance = 0;
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor output_gradient;
  bool adds = false;  // to the gradient of q
  Tensor q_gradient;
  Tensor k_gradient;
  Tensor v_gradient;
  Tensor theta_gradient;  // [heads, head_size], added to; empty: not wanted. GPUs have none.
  Tensor scratch;         // as in the forward
};

// Linear attention without states (kernels/left_product_attention.h).
class LeftProduct {
 public:
  virtual ~LeftProduct() = default;

  // What the operations need besides their operands, of the activation type.
  virtual int64_t ScratchElements(const AttentionShape& /*shape*/) const { return 0; }

  virtual void Output(const AttentionShape& shape, const LeftProductForward& tensors) = 0;
  virtual void Gradients(const AttentionShape& shape, const LeftProductBackward& tensors) = 0;
};

// What does not change from step to step.
struct AdamWConstants {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
};

// A range of parameters that is updated alike: all contiguous and of one size, of the accumulation
// type but for `weight` and, where they are kBFloat16 and that type is fp32, both moments.
struct AdamWTensors {
  Tensor master;
  Tensor weight;  // the master's copy for the products, or the same tensor
  Tensor gradient;
  Tensor first_moment;
  Tensor second_moment;
  int64_t first_element = 0;  // in the flat order of all parameters
  double weight_decay = 0;
};

// Operations are issued in order by one thread, but for StateHop and StateGradientHop, which a
// communicator's thread may issue beside it. Tensors of numbers have activation_type(), or
// accumulation_type() where that says so, unless something else is said. Shapes are the caller's
// duty. An operation that fails on the device is reported by Synchronize, and by every later one.
// Equations: the header of the same name in kernels/.
class Backend {
 public:
  virtual ~Backend() = default;

  // Of activations and their gradients, and of the weights that products read.
  virtual DType activation_type() const = 0;
  // Of what accumulates: master weights, gradients of parameters, moments, attention's states, and
  // rows' inverse rms. The same as activation_type() on a device that rounds nothing.
  virtual DType accumulation_type() const = 0;
  // As many logits at a time keep the device busy, in a chunk of the head.
  virtual int64_t logits_at_a_time() const = 0;
  // What the operations need besides their operands, for the sizes given, and where it lies
  // (kInt32, aligned as all of an arena). To be given before the first operation that is not a
  // copy.
  virtual int64_t WorkspaceBytes(const WorkspaceShape& shape) const = 0;
  virtual void UseWorkspace(Tensor workspace) = 0;
  // Whether a step should be rehearsed before the first: while rehearsing the device computes what
  // it is given several times over, to find out how it is fastest, and no result is worth anything.
  virtual bool wants_rehearsal() const = 0;
  virtual void Rehearse(bool rehearsing) = 0;
  // Zeroed and aligned to 64 bytes. RESOURCE_EXHAUSTED names the size.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) = 0;
  // Room in host memory for copies of `bytes` at most; must not outlive the backend.
  // RESOURCE_EXHAUSTED names the size.
  virtual absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) = 0;
  // `slots` of `slot_bytes` each in host memory; must not outlive the backend. RESOURCE_EXHAUSTED
  // names the size.
  virtual absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t slots,
                                                                 int64_t slot_bytes) = 0;
  // What could still be allocated, in bytes; none where the device does not say.
  virtual std::optional<int64_t> FreeBytes() = 0;
  // Waits for everything issued so far.
  virtual absl::Status Synchronize() = 0;
  // What the first thread issues from here on belongs to `phase`. Returns the phase before.
  virtual Phase EnterPhase(Phase phase) = 0;
  // How long the device was in each phase since the last call, up to the last Synchronize.
  virtual PhaseSeconds TakePhaseSeconds() = 0;
  // Prepares a thread other than the first for issuing operations: its kernels use one thread.
  virtual void EnterHelperThread() = 0;

  // Contiguous tensors; complete on return.
  virtual void CopyFromHost(const void* source, Tensor destination) = 0;
  virtual void CopyToHost(Tensor source, void* destination) = 0;
  // destination = source, converted to the destination's type. Contiguous.
  virtual void Convert(Tensor source, Tensor destination) = 0;
  // destination = source, of one type and shape, whatever their strides; they do not overlap.
  virtual void Copy(Tensor source, Tensor destination) = 0;
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
  // product: the forward's output once more; may be output_gradient, or empty.
  virtual void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient,
                           Tensor b_gradient, Tensor product) = 0;

  // loss_sum: kFloat64 [1, 1], added to. labels: kInt32 [rows, 1]. gradient may be empty, or the
  // logits.
  virtual void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                            Tensor loss_sum) = 0;

  // States that are kept between the parts of an attention for each (batch, head): their number is
  // the device's choice.
  virtual int64_t SavedStateCount(const AttentionShape& shape) const = 0;
  // KV_loc into `state`, and the saved states.
  virtual void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                          Tensor saved_states) = 0;
  // Together they write the output. What the first does needs no state_in: on the CPU the product
  // within blocks, on a GPU, where one pass over the tokens is cheaper than two, nothing.
  virtual void BeginOutput(const AttentionShape& shape, const AttentionForward& tensors) = 0;
  virtual void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) = 0;
  // dKV_loc into `state_gradient`, and the saved gradients.
  virtual void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                                  Tensor state_gradient, Tensor saved_gradients) = 0;
  // Together they write the gradients of q, k and v, and add to theta's. The first needs no
  // state_gradient_in.
  virtual void BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) = 0;
  virtual void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) = 0;
  // state_in may be empty: zeros. Where the layer is normalised both are the sum of the two states,
  // whatever part of them is given; all of them where there are document_marks.
  virtual void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) = 0;
  virtual void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                                Tensor state_out) = 0;

  // Null where the device has none.
  virtual LeftProduct* left_product() { return nullptr; }

  // Null where the device does not compute Linear Transformers.
  virtual LinearTransformerOps* linear_transformer() { return nullptr; }

  // Null where the device has none.
  virtual SplitNormOps* split_norm() { return nullptr; }

  // Null where the device does not compute softmax attention.
  virtual SoftmaxOps* softmax() { return nullptr; }

  // sum: kFloat64 [1, 1], added to. values: contiguous.
  virtual void SumOfSquares(Tensor values, Tensor sum) = 0;
  // Whether the step's update is made, decided on the device, so that no host waits between
  // backward and update. control: kFloat64, a kernels::UpdateControl. loss, sum_of_squares:
  // kFloat64 [1, 1].
  virtual void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                           Tensor sum_of_squares, Tensor control) = 0;
  // Nothing where `control` says so.
  virtual void AdamW(const AdamWConstants& constants, Tensor control,
                     const std::vector<AdamWTensors>& tensors) = 0;
};

// The CPU: kernels/cpu in fp32, or in fp64 for tests. `threads` for OpenMP and BLAS. Call from the
// thread that will issue the operations.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(DType type, int threads);

}  // namespace lasp::worker
