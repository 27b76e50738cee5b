#include <memory>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/head_exchange.h"
#include "worker/parallel/softmax_parallel.h"

namespace lasp::worker {
namespace {

// Places of the exchange: keys and values go ahead of the queries.
constexpr size_t kQueryPlace = 2;
constexpr int64_t kPlaces = 3;

class UlyssesSoftmax final : public SoftmaxParallel {
 public:
  UlyssesSoftmax(Backend* backend, SoftmaxOps* softmax, Communicator* sp)
      : backend_(*backend), softmax_(*softmax), sp_(*sp), exchange_(backend, sp) {}

  SoftmaxMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    const AttentionShape whole = Whole(shape);
    const auto take = [&](int64_t heads) {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(),
                        whole.batch * whole.tokens, heads * whole.head_size);
    };
    SoftmaxMemory memory;
    memory.log_sums = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(),
                                 whole.batch * whole.heads, whole.tokens);
    memory.moved_q = take(whole.heads);
    memory.moved_k = take(whole.kv_heads);
    memory.moved_v = take(whole.kv_heads);
    memory.moved_output = take(whole.heads);
    return memory;
  }

  void TakeScratch(const AttentionShape& shape, Arena& arena) override {
    const AttentionShape whole = Whole(shape);
    const auto take = [&](int64_t heads) {
      return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(),
                        whole.batch * whole.tokens, heads * whole.head_size);
    };
    exchange_.TakeScratch(kPlaces, shape.batch * shape.tokens, whole.heads * whole.head_size,
                          arena);
    output_gradient_ = take(whole.heads);
    q_gradient_ = take(whole.heads);
    k_gradient_ = take(whole.kv_heads);
    v_gradient_ = take(whole.kv_heads);
    scratch_ = arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), 1,
                          softmax_.ScratchElements(whole, {.keys = whole.tokens, .merges = false}));
  }

  absl::Status BeginForward(const AttentionShape& shape, Tensor kv,
                            const SoftmaxMemory& memory) override {
    under_way_ =
        exchange_.HeadsForTokens(shape.batch, SlicesOf(shape),
                                 {{KeysOf(kv), memory.moved_k}, {ValuesOf(kv), memory.moved_v}});
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                          const SoftmaxMemory& memory, Tensor output) override {
    const AttentionShape whole = Whole(shape);
    Operation queries = exchange_.HeadsForTokens(shape.batch, SlicesOf(shape),
                                                 {{inputs.q, memory.moved_q}}, kQueryPlace);
    LASP_RETURN_IF_ERROR(WaitFor(under_way_));
    LASP_RETURN_IF_ERROR(WaitFor(queries));
    softmax_.Output(whole, {.keys = whole.tokens,
                            .q = memory.moved_q,
                            .k = memory.moved_k,
                            .v = memory.moved_v,
                            .output = memory.moved_output,
                            .log_sums = memory.log_sums,
                            .scratch = scratch_});
    return exchange_.TokensForHeads(shape.batch, SlicesOf(shape), {{output, memory.moved_output}});
  }

  // The forward has kept what it was sent.
  absl::Status BeginBackward(const AttentionShape& /*shape*/, Tensor /*kv*/,
                             const SoftmaxMemory& /*memory*/) override {
    return absl::OkStatus();
  }

  absl::Status EndBackward(const AttentionShape& shape, const SoftmaxInputs& /*inputs*/,
                           const SoftmaxMemory& memory, Tensor /*output*/, Tensor output_gradient,
                           const SoftmaxInputs& gradients) override {
    const AttentionShape whole = Whole(shape);
    Operation exchange = exchange_.HeadsForTokens(shape.batch, SlicesOf(shape),
                                                  {{output_gradient, output_gradient_}});
    LASP_RETURN_IF_ERROR(WaitFor(exchange));
    softmax_.Gradients(whole, {.keys = whole.tokens,
                               .q = memory.moved_q,
                               .k = memory.moved_k,
                               .v = memory.moved_v,
                               .output = memory.moved_output,
                               .log_sums = memory.log_sums,
                               .output_gradient = output_gradient_,
                               .q_gradient = q_gradient_,
                               .k_gradient = k_gradient_,
                               .v_gradient = v_gradient_,
                               .scratch = scratch_});
    return exchange_.TokensForHeads(shape.batch, SlicesOf(shape),
                                    {{gradients.q, q_gradient_},
                                     {KeysOf(gradients.kv), k_gradient_},
                                     {ValuesOf(gradients.kv), v_gradient_}});
  }

 private:
  static Tensor KeysOf(Tensor kv) { return kv.Columns(0, kv.columns / 2); }

  static Tensor ValuesOf(Tensor kv) { return kv.Columns(kv.columns / 2, kv.columns / 2); }

  SequenceSlices SlicesOf(const AttentionShape& shape) const {
    return SequenceSlices{}.OrEven(shape.tokens, sp_.size());
  }

  // What this rank computes: all tokens of its heads.
  AttentionShape Whole(const AttentionShape& shape) const {
    AttentionShape whole = shape;
    whole.tokens = SlicesOf(shape).total;
    whole.heads = shape.heads / sp_.size();
    whole.kv_heads = shape.kv_heads / sp_.size();
    return whole;
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
  HeadExchange exchange_;
  Tensor output_gradient_;
  Tensor q_gradient_;
  Tensor k_gradient_;
  Tensor v_gradient_;
  Tensor scratch_;
  Operation under_way_;
};

}  // namespace

std::unique_ptr<SoftmaxParallel> CreateUlyssesSoftmax(Backend* backend, Communicator* sp) {
  SoftmaxOps* const softmax = backend->softmax();
  if (softmax == nullptr) {
    return nullptr;
  }
  // One rank has all heads where they are.
  return sp->size() == 1 ? CreateGatheredSoftmax(backend, sp)
                         : std::make_unique<UlyssesSoftmax>(backend, softmax, sp);
}

}  // namespace lasp::worker
