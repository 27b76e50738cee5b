#include <memory>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/softmax_parallel.h"

namespace lasp::worker {
namespace {

class GatheredSoftmax final : public SoftmaxParallel {
 public:
  GatheredSoftmax(Backend* backend, SoftmaxOps* softmax, Communicator* sp)
      : backend_(*backend), softmax_(*softmax), sp_(*sp) {}

  SoftmaxMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    SoftmaxMemory memory;
    memory.log_sums = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(),
                                 shape.batch * shape.heads, shape.tokens);
    return memory;
  }

  void TakeScratch(const AttentionShape& shape, Arena& arena) override {
    // As the last rank needs it: memory is laid out alike on all.
    scratch_ = arena.Take(
        MemoryUse::kWorkspace, backend_.activation_type(), 1,
        softmax_.ScratchElements(shape, {.keys = sp_.size() * shape.tokens, .merges = false}));
    if (sp_.size() == 1) {
      return;
    }
    const auto take = [&] {
      return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(),
                        shape.batch * sp_.size() * shape.tokens,
                        2 * shape.kv_heads * shape.head_size);
    };
    gathered_ = take();
    gradients_ = take();
  }

  absl::Status BeginForward(const AttentionShape& shape, Tensor kv,
                            const SoftmaxMemory& /*memory*/) override {
    Gather(shape, kv);
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                          const SoftmaxMemory& memory, Tensor output) override {
    LASP_RETURN_IF_ERROR(WaitFor(under_way_));
    const Tensor kv = Whole(inputs.kv, gathered_);
    softmax_.Output(shape, {.keys = Seen(shape),
                            .offset = sp_.rank() * shape.tokens,
                            .q = inputs.q,
                            .k = KeysOf(kv),
                            .v = ValuesOf(kv),
                            .output = output,
                            .log_sums = memory.log_sums,
                            .scratch = scratch_});
    return absl::OkStatus();
  }

  absl::Status BeginBackward(const AttentionShape& shape, Tensor kv,
                             const SoftmaxMemory& /*memory*/) override {
    Gather(shape, kv);
    return absl::OkStatus();
  }

  absl::Status EndBackward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                           const SoftmaxMemory& memory, Tensor output, Tensor output_gradient,
                           const SoftmaxInputs& gradients) override {
    LASP_RETURN_IF_ERROR(WaitFor(under_way_));
    const Tensor kv = Whole(inputs.kv, gathered_);
    const Tensor kv_gradient = Whole(gradients.kv, gradients_);
    softmax_.Gradients(shape, {.keys = Seen(shape),
                               .offset = sp_.rank() * shape.tokens,
                               .q = inputs.q,
                               .k = KeysOf(kv),
                               .v = ValuesOf(kv),
                               .output = output,
                               .log_sums = memory.log_sums,
                               .output_gradient = output_gradient,
                               .q_gradient = gradients.q,
                               .k_gradient = KeysOf(kv_gradient),
                               .v_gradient = ValuesOf(kv_gradient),
                               .scratch = scratch_});
    return Scatter(shape, gradients.kv);
  }

 private:
  static Tensor KeysOf(Tensor kv) { return kv.Columns(0, kv.columns / 2); }

  static Tensor ValuesOf(Tensor kv) { return kv.Columns(kv.columns / 2, kv.columns / 2); }

  // Keys of each sequence that this rank's queries see.
  int64_t Seen(const AttentionShape& shape) const { return (sp_.rank() + 1) * shape.tokens; }

  Tensor Whole(Tensor own, Tensor of_all) const { return sp_.size() == 1 ? own : of_all; }

  // One of the sequences, of all ranks' tokens.
  Tensor SequenceOf(const AttentionShape& shape, Tensor whole, int64_t sequence) const {
    const int64_t tokens = sp_.size() * shape.tokens;
    return whole.Rows(sequence * tokens, tokens);
  }

  void Gather(const AttentionShape& shape, Tensor kv) {
    for (int64_t sequence = 0; sequence < shape.batch && sp_.size() > 1; ++sequence) {
      const Tensor whole = SequenceOf(shape, gathered_, sequence);
      const Tensor own = whole.Rows(sp_.rank() * shape.tokens, shape.tokens);
      backend_.Copy(kv.Rows(sequence * shape.tokens, shape.tokens), own);
      // They run in order and fail for good: the last one speaks for all.
      under_way_ = sp_.AllGather(own, whole);
    }
  }

  absl::Status Scatter(const AttentionShape& shape, Tensor kv_gradient) {
    if (sp_.size() == 1) {
      return absl::OkStatus();
    }
    for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
      const Tensor whole = SequenceOf(shape, gradients_, sequence);
      const int64_t unseen = whole.rows - Seen(shape);
      if (unseen > 0) {
        backend_.Fill(0, whole.Rows(Seen(shape), unseen));
      }
      under_way_ = sp_.ReduceScatterSum(whole, whole.Rows(sp_.rank() * shape.tokens, shape.tokens));
    }
    LASP_RETURN_IF_ERROR(WaitFor(under_way_));
    for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
      const Tensor whole = SequenceOf(shape, gradients_, sequence);
      backend_.Copy(whole.Rows(sp_.rank() * shape.tokens, shape.tokens),
                    kv_gradient.Rows(sequence * shape.tokens, shape.tokens));
    }
    return absl::OkStatus();
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  Backend& backend_;
  SoftmaxOps& softmax_;
  Communicator& sp_;
  // [batch * ranks * tokens, 2 * kv_heads * head_size]: one sequence after another.
  Tensor gathered_;
  Tensor gradients_;
  Tensor scratch_;
  Operation under_way_;
};

}  // namespace

std::unique_ptr<SoftmaxParallel> CreateGatheredSoftmax(Backend* backend, Communicator* sp) {
  SoftmaxOps* const softmax = backend->softmax();
  return softmax == nullptr ? nullptr : std::make_unique<GatheredSoftmax>(backend, softmax, sp);
}

}  // namespace lasp::worker
