#include <algorithm>
#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/head_exchange.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

constexpr int kInputs = 3;  // q, k, v

class Ulysses final : public SequenceParallel {
 public:
  Ulysses(Backend* backend, Communicator* sp)
      : backend_(*backend),
        sp_(*sp),
        exchange_(backend, sp),
        softmax_(CreateUlyssesSoftmax(backend, sp)) {}

  void ExpectAtEnd(const SequenceSlices& last) override { last_ = last; }

  void UseSlices(const SequenceSlices& slices) override { slices_ = slices; }

  void UseDocuments(const DocumentMarks& documents) override { documents_ = documents; }

  // All of the slices, this rank's heads.
  AttentionShape ComputedShape(const AttentionShape& shape) const override {
    AttentionShape whole = shape;
    whole.tokens = SlicesOf(shape).total;
    whole.heads = shape.heads / sp_.size();
    whole.slopes = shape.slopes.Columns(FirstHead(shape), whole.heads);
    whole.theta = shape.theta.Rows(FirstHead(shape), whole.heads);
    whole.document_marks = documents_.Whole();
    return whole;
  }

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    const AttentionShape whole = ComputedShape(shape);
    AttentionMemory memory;
    memory.saved_states =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   whole.product_rows() * MostSavedStates(whole), whole.head_size);
    const auto take = [&](int64_t count) {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(),
                        count * whole.batch * whole.tokens, whole.heads * whole.head_size);
    };
    memory.whole_inputs = take(kInputs);
    if (shape.normalised) {
      memory.whole_output = take(1);
      memory.whole_denominators = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(),
                                             whole.batch * whole.tokens, whole.heads);
    }
    return memory;
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    const AttentionShape whole = ComputedShape(widest);
    const int64_t rows = whole.batch * whole.tokens;
    const auto take = [&](int64_t count) {
      return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), count * rows,
                        whole.heads * whole.head_size);
    };
    exchange_.TakeScratch(kInputs, rows / sp_.size(), whole.heads * whole.head_size, arena);
    whole_output_ = take(1);
    whole_gradients_ = take(kInputs);
    state_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(), whole.state_matrix_rows(),
                        whole.head_size);
    saved_gradients_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                                  whole.product_rows() * MostSavedStates(whole), whole.head_size);
  }

  StateCarrying state_carrying() const override { return StateCarrying::kByHead; }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    const AttentionInputs whole = InputsOf(shape, memory);
    std::vector<BothViews> views = {{inputs.k, whole.k}, {inputs.v, whole.v}};
    if (Wanted(shape, inputs.q)) {
      views.push_back({inputs.q, whole.q});
    }
    inputs_exchange_ = HeadsForTokens(shape, views);
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& /*inputs*/,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionShape whole = ComputedShape(shape);
    const AttentionInputs inputs = InputsOf(shape, memory);
    const Tensor state = state_.Rows(0, whole.state_matrix_rows());
    const AttentionForward tensors{
        .q = inputs.q,
        .k = inputs.k,
        .v = inputs.v,
        .saved_states = memory.saved_states,
        .state_in = memory.state_in,
        .output = PartOf(whole, shape.normalised ? memory.whole_output : whole_output_, 1, 0)};
    LASP_RETURN_IF_ERROR(WaitFor(inputs_exchange_));
    backend_.LocalState(whole, tensors.k, tensors.v, state, tensors.saved_states);
    if (!memory.state_out.empty()) {
      if (shape.normalised) {
        normaliser().KeySum(whole, tensors.k, whole.KeySumsOf(state));
      }
      Hop(backend_, /*gradient=*/false, whole, memory.state_in, state, memory.state_out);
    }
    if (!Wanted(shape, output)) {
      return absl::OkStatus();
    }
    backend_.BeginOutput(whole, tensors);
    backend_.EndOutput(whole, tensors);
    if (shape.normalised) {
      normaliser().Normalise(whole, tensors.q, tensors.k, whole.KeySumsOf(memory.state_in),
                             tensors.output, DenominatorsOf(whole, memory));
    }
    return TokensForHeads(shape, {{output, tensors.output}});
  }

  absl::Status Recompute(const AttentionShape& shape, const AttentionInputs& inputs,
                         const AttentionMemory& memory, Tensor output) override {
    // What the first forward left the next macro-chunk need not be formed again.
    AttentionMemory again = memory;
    again.state_out = {};
    LASP_RETURN_IF_ERROR(BeginForward(shape, inputs, again));
    return EndForward(shape, inputs, again, output);
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& /*inputs*/,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    const AttentionShape whole = ComputedShape(shape);
    const AttentionInputs inputs = InputsOf(shape, memory);
    const Tensor state_gradient = state_.Rows(0, whole.state_matrix_rows());
    const AttentionBackward tensors{
        .q = inputs.q,
        .k = inputs.k,
        .v = inputs.v,
        .output_gradient = PartOf(whole, whole_output_, 1, 0),
        .saved_states = memory.saved_states,
        .saved_gradients = saved_gradients_.Rows(0, memory.saved_states.rows),
        .state_in = memory.state_in,
        .state_gradient_in = memory.state_gradient_in,
        .q_gradient = PartOf(whole, whole_gradients_, kInputs, 0),
        .k_gradient = PartOf(whole, whole_gradients_, kInputs, 1),
        .v_gradient = PartOf(whole, whole_gradients_, kInputs, 2),
        .theta_gradient = gradients.theta.Rows(FirstHead(shape), whole.heads)};
    Operation exchange = HeadsForTokens(shape, {{output_gradient, tensors.output_gradient}});
    LASP_RETURN_IF_ERROR(WaitFor(exchange));
    const Tensor denominators = shape.normalised ? DenominatorsOf(whole, memory) : Tensor{};
    if (shape.normalised) {
      normaliser().SplitGradient(whole, PartOf(whole, memory.whole_output, 1, 0),
                                 tensors.output_gradient, denominators);
      if (!memory.state_gradient_out.empty()) {
        normaliser().QuerySum(whole, tensors.q, denominators, whole.KeySumsOf(state_gradient));
      }
    }
    backend_.LocalStateGradient(whole, tensors.q, tensors.output_gradient, state_gradient,
                                tensors.saved_gradients);
    backend_.BeginGradients(whole, tensors);
    backend_.EndGradients(whole, tensors);
    if (shape.normalised) {
      normaliser().AddQueryGradients(whole, tensors.k, denominators,
                                     whole.KeySumsOf(memory.state_in), tensors.q_gradient);
      normaliser().AddKeyGradients(whole, tensors.q, denominators,
                                   whole.KeySumsOf(memory.state_gradient_in), tensors.k_gradient);
    }
    if (!memory.state_gradient_out.empty()) {
      Hop(backend_, /*gradient=*/true, whole, tensors.state_gradient_in, state_gradient,
          memory.state_gradient_out);
    }
    return TokensForHeads(shape, {{gradients.q, tensors.q_gradient},
                                  {gradients.k, tensors.k_gradient},
                                  {gradients.v, tensors.v_gradient}});
  }

  absl::Status Finish() override { return WaitFor(inputs_exchange_); }

  SoftmaxParallel* softmax() override { return softmax_.get(); }

 private:
  int64_t FirstHead(const AttentionShape& shape) const {
    return shape.heads / sp_.size() * sp_.rank();
  }

  SequenceSlices SlicesOf(const AttentionShape& shape) const {
    return slices_.OrEven(shape.tokens, sp_.size());
  }

  // Of all lengths that come, in training and in a rehearsal: on a GPU fewer tokens may need more.
  int64_t MostSavedStates(AttentionShape whole) const {
    int64_t most = backend_.SavedStateCount(whole);
    for (const int64_t tokens : {last_.total, last_.CutShort() * sp_.size()}) {
      whole.tokens = tokens;
      most = std::max(most, tokens > 0 ? backend_.SavedStateCount(whole) : 0);
    }
    return most;
  }

  // Whether the other ranks, too, exchange what this one is given: it is empty where nobody wants
  // it, and where this rank has no tokens.
  static bool Wanted(const AttentionShape& shape, Tensor local) {
    return shape.tokens == 0 || !local.empty();
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  // One of `count` tensors over the whole of the slices.
  static Tensor PartOf(const AttentionShape& whole, Tensor parts, int count, int index) {
    return parts.Rows(parts.rows / count * index, whole.batch * whole.tokens);
  }

  // For normalised layers.
  LinearTransformerOps& normaliser() { return *backend_.linear_transformer(); }

  static Tensor DenominatorsOf(const AttentionShape& whole, const AttentionMemory& memory) {
    return memory.whole_denominators.Rows(0, whole.batch * whole.tokens);
  }

  AttentionInputs InputsOf(const AttentionShape& shape, const AttentionMemory& memory) const {
    const AttentionShape whole = ComputedShape(shape);
    return {.q = PartOf(whole, memory.whole_inputs, kInputs, 0),
            .k = PartOf(whole, memory.whole_inputs, kInputs, 1),
            .v = PartOf(whole, memory.whole_inputs, kInputs, 2)};
  }

  // From all heads of this rank's tokens to this rank's heads of all tokens.
  Operation HeadsForTokens(const AttentionShape& shape, const std::vector<BothViews>& views) {
    return exchange_.HeadsForTokens(shape.batch, SlicesOf(shape), views);
  }

  // The way back.
  absl::Status TokensForHeads(const AttentionShape& shape, const std::vector<BothViews>& views) {
    return exchange_.TokensForHeads(shape.batch, SlicesOf(shape), views);
  }

  Backend& backend_;
  Communicator& sp_;
  HeadExchange exchange_;
  const std::unique_ptr<SoftmaxParallel> softmax_;
  SequenceSlices last_;
  SequenceSlices slices_;
  DocumentMarks documents_;
  Tensor whole_output_;  // and its gradient
  Tensor whole_gradients_;
  Tensor state_;
  Tensor saved_gradients_;
  Operation inputs_exchange_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateUlysses(Backend* backend, Communicator* sp) {
  return std::make_unique<Ulysses>(backend, sp);
}

}  // namespace lasp::worker
