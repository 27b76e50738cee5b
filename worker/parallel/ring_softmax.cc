#include <memory>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/key_value_ring.h"
#include "worker/parallel/softmax_parallel.h"

namespace lasp::worker {
namespace {

class RingSoftmax final : public SoftmaxParallel {
 public:
  RingSoftmax(Backend* backend, SoftmaxOps* softmax, Communicator* sp)
      : backend_(*backend), softmax_(*softmax), sp_(*sp), ring_(backend, sp) {}

  SoftmaxMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    SoftmaxMemory memory;
    memory.log_sums = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(),
                                 shape.batch * shape.heads, shape.tokens);
    return memory;
  }

  void TakeScratch(const AttentionShape& shape, Arena& arena) override {
    ring_.TakeScratch(shape.batch * shape.tokens, 2 * shape.kv_heads * shape.head_size, arena);
    scratch_ = arena.Take(
        MemoryUse::kWorkspace, backend_.activation_type(), 1,
        softmax_.ScratchElements(shape, {.keys = shape.tokens, .merges = sp_.size() > 1}));
  }

  absl::Status BeginForward(const AttentionShape& /*shape*/, Tensor kv,
                            const SoftmaxMemory& /*memory*/) override {
    return SetOut(kv);
  }

  absl::Status EndForward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                          const SoftmaxMemory& memory, Tensor output) override {
    for (int step = 0; ring_.Sees(step); ++step) {
      LASP_ASSIGN_OR_RETURN(const Tensor kv, BlockOf(inputs, step));
      softmax_.Output(shape, {.keys = shape.tokens,
                              .offset = step * shape.tokens,
                              .first_key = FirstKey(shape, step),
                              .q = inputs.q,
                              .k = KeysOf(kv),
                              .v = ValuesOf(kv),
                              .merges = step > 0,
                              .output = output,
                              .log_sums = memory.log_sums,
                              .scratch = scratch_});
    }
    return absl::OkStatus();
  }

  absl::Status BeginBackward(const AttentionShape& /*shape*/, Tensor kv,
                             const SoftmaxMemory& /*memory*/) override {
    return SetOut(kv);
  }

  absl::Status EndBackward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                           const SoftmaxMemory& memory, Tensor output, Tensor output_gradient,
                           const SoftmaxInputs& gradients) override {
    for (int step = 0; step < sp_.size(); ++step) {
      if (ring_.Sees(step)) {
        LASP_ASSIGN_OR_RETURN(const Tensor kv, BlockOf(inputs, step));
        const Tensor kv_gradient = step == 0 ? ring_.own_gradient() : ring_.VisitorGradient(step);
        softmax_.Gradients(shape, {.keys = shape.tokens,
                                   .offset = step * shape.tokens,
                                   .first_key = FirstKey(shape, step),
                                   .q = inputs.q,
                                   .k = KeysOf(kv),
                                   .v = ValuesOf(kv),
                                   .output = output,
                                   .log_sums = memory.log_sums,
                                   .output_gradient = output_gradient,
                                   .adds = step > 0,
                                   .q_gradient = gradients.q,
                                   .k_gradient = KeysOf(kv_gradient),
                                   .v_gradient = ValuesOf(kv_gradient),
                                   .scratch = scratch_});
      }
      if (step > 0) {
        LASP_RETURN_IF_ERROR(ring_.SendHome(step));
      }
    }
    LASP_RETURN_IF_ERROR(ring_.EndHome());
    backend_.Copy(ring_.own_gradient(), gradients.kv);
    return absl::OkStatus();
  }

  absl::Status Finish() override { return ring_.Finish(); }

 private:
  static Tensor KeysOf(Tensor kv) { return kv.Columns(0, kv.columns / 2); }

  static Tensor ValuesOf(Tensor kv) { return kv.Columns(kv.columns / 2, kv.columns / 2); }

  // Of the block of the rank so many before this one.
  int64_t FirstKey(const AttentionShape& shape, int step) const {
    return (sp_.rank() - step) * shape.tokens;
  }

  absl::Status SetOut(Tensor kv) {
    LASP_ASSIGN_OR_RETURN(const Tensor own, ring_.Own());
    backend_.Copy(kv, own);
    ring_.SetOut();
    return absl::OkStatus();
  }

  absl::StatusOr<Tensor> BlockOf(const SoftmaxInputs& inputs, int step) {
    return step == 0 ? absl::StatusOr<Tensor>(inputs.kv) : ring_.Visitor(step);
  }

  Backend& backend_;
  SoftmaxOps& softmax_;
  Communicator& sp_;
  KeyValueRing ring_;
  Tensor scratch_;
};

}  // namespace

std::unique_ptr<SoftmaxParallel> CreateRingSoftmax(Backend* backend, Communicator* sp) {
  SoftmaxOps* const softmax = backend->softmax();
  return softmax == nullptr ? nullptr : std::make_unique<RingSoftmax>(backend, softmax, sp);
}

}  // namespace lasp::worker
