#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

constexpr int kInputs = 3;  // q, k, v

class Ulysses final : public SequenceParallel {
 public:
  Ulysses(Backend* backend, Communicator* sp) : backend_(*backend), sp_(*sp) {}

  // All of the sequence, this rank's heads.
  AttentionShape ComputedShape(const AttentionShape& shape) const override {
    AttentionShape whole = shape;
    whole.tokens = shape.tokens * sp_.size();
    whole.heads = shape.heads / sp_.size();
    whole.slopes = shape.slopes.Columns(FirstHead(shape), whole.heads);
    whole.theta = shape.theta.Rows(FirstHead(shape), whole.heads);
    return whole;
  }

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    const AttentionShape whole = ComputedShape(shape);
    AttentionMemory memory;
    memory.saved_states =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   whole.product_rows() * backend_.SavedStateCount(whole), whole.head_size);
    const auto take = [&](int64_t count) {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(),
                        count * whole.batch * whole.tokens, whole.heads * whole.head_size);
    };
    memory.whole_inputs = take(kInputs);
    if (shape.normalised) {
      memory.whole_output = take(1);
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
    packed_ = take(kInputs);
    whole_output_ = take(1);
    whole_gradients_ = take(kInputs);
    state_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(), whole.state_matrix_rows(),
                        whole.head_size);
    saved_gradients_ =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   whole.product_rows() * backend_.SavedStateCount(whole), whole.head_size);
  }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    inputs_exchange_ = HeadsForTokens(shape, {inputs.q, inputs.k, inputs.v}, memory.whole_inputs);
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& /*inputs*/,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionShape whole = ComputedShape(shape);
    const Tensor whole_output = shape.normalised ? memory.whole_output : whole_output_;
    const AttentionForward tensors{.q = PartOf(memory.whole_inputs, kInputs, 0),
                                   .k = PartOf(memory.whole_inputs, kInputs, 1),
                                   .v = PartOf(memory.whole_inputs, kInputs, 2),
                                   .saved_states = memory.saved_states,
                                   .state_in = {},
                                   .output = whole_output};
    LASP_RETURN_IF_ERROR(WaitFor(inputs_exchange_));
    backend_.LocalState(whole, tensors.k, tensors.v, state_.Rows(0, whole.state_matrix_rows()),
                        tensors.saved_states);
    backend_.BeginOutput(whole, tensors);
    backend_.EndOutput(whole, tensors);
    if (shape.normalised) {
      backend_.linear_transformer()->Normalise(whole, tensors.q, tensors.k, Tensor{}, whole_output,
                                               DenominatorsOf(whole, memory));
    }
    return TokensForHeads(shape, whole_output, {output});
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& /*inputs*/,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    const AttentionShape whole = ComputedShape(shape);
    const Tensor whole_output_gradient = whole_output_;
    Operation exchange = HeadsForTokens(shape, {output_gradient}, whole_output_gradient);
    LASP_RETURN_IF_ERROR(WaitFor(exchange));
    const AttentionBackward tensors{
        .q = PartOf(memory.whole_inputs, kInputs, 0),
        .k = PartOf(memory.whole_inputs, kInputs, 1),
        .v = PartOf(memory.whole_inputs, kInputs, 2),
        .output_gradient = whole_output_gradient,
        .saved_states = memory.saved_states,
        .saved_gradients = saved_gradients_.Rows(0, memory.saved_states.rows),
        .state_in = {},
        .state_gradient_in = {},
        .q_gradient = PartOf(whole_gradients_, kInputs, 0),
        .k_gradient = PartOf(whole_gradients_, kInputs, 1),
        .v_gradient = PartOf(whole_gradients_, kInputs, 2),
        .theta_gradient = gradients.theta.Rows(FirstHead(shape), whole.heads)};
    LinearTransformerOps* const normaliser =
        shape.normalised ? backend_.linear_transformer() : nullptr;
    const Tensor denominators = DenominatorsOf(whole, memory);
    if (normaliser != nullptr) {
      normaliser->SplitGradient(whole, memory.whole_output, whole_output_gradient, denominators);
    }
    backend_.LocalStateGradient(whole, tensors.q, tensors.output_gradient,
                                state_.Rows(0, whole.state_matrix_rows()), tensors.saved_gradients);
    backend_.BeginGradients(whole, tensors);
    backend_.EndGradients(whole, tensors);
    if (normaliser != nullptr) {
      normaliser->AddQueryGradients(whole, tensors.k, denominators, Tensor{}, tensors.q_gradient);
      normaliser->AddKeyGradients(whole, tensors.q, denominators, Tensor{}, tensors.k_gradient);
    }
    return TokensForHeads(shape, whole_gradients_, {gradients.q, gradients.k, gradients.v});
  }

  absl::Status Finish() override { return WaitFor(inputs_exchange_); }

 private:
  int64_t FirstHead(const AttentionShape& shape) const {
    return shape.heads / sp_.size() * sp_.rank();
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  static Tensor PartOf(Tensor parts, int count, int index) {
    return parts.Rows(parts.rows / count * index, parts.rows / count);
  }

  // Of this rank's heads for all tokens: as many numbers as of all heads for its tokens.
  static Tensor DenominatorsOf(const AttentionShape& whole, const AttentionMemory& memory) {
    return memory.denominators.Reshape(whole.batch * whole.tokens, whole.heads);
  }

  // Of a tensor over the whole sequence: the tokens of a rank in one of the sequences.
  Tensor TokensOf(const AttentionShape& shape, Tensor whole, int64_t sequence, int rank) const {
    return whole.Rows((sequence * sp_.size() + rank) * shape.tokens, shape.tokens);
  }

  // Of a tensor over this rank's tokens: the heads of a rank.
  Tensor HeadsOf(const AttentionShape& shape, Tensor local, int rank) const {
    const int64_t columns = shape.heads / sp_.size() * shape.head_size;
    return local.Columns(columns * rank, columns);
  }

  // One of `count` tensors of this rank's tokens and a rank's heads, on their way.
  Tensor Packed(int count, int index, int rank) const {
    const int64_t rows = packed_.rows / kInputs / sp_.size();
    return packed_.Rows((int64_t{count} * rank + index) * rows, rows);
  }

  // Ranks begin with different peers, so that none serves all at once.
  int Peer(int turn) const { return (sp_.rank() + turn) % sp_.size(); }

  // From all heads of this rank's tokens to this rank's heads of all tokens, for several tensors:
  // `whole` takes them one after another.
  Operation HeadsForTokens(const AttentionShape& shape, const std::vector<Tensor>& locals,
                           Tensor whole) {
    const int count = static_cast<int>(locals.size());
    std::vector<PeerTransfer> transfers;
    transfers.reserve(static_cast<size_t>(shape.batch * sp_.size() * count));
    for (int turn = 0; turn < sp_.size(); ++turn) {
      const int peer = Peer(turn);
      for (int index = 0; index < count; ++index) {
        const Tensor heads = HeadsOf(shape, locals[static_cast<size_t>(index)], peer);
        const Tensor part = PartOf(whole, count, index);
        const Tensor packed = Packed(count, index, peer);
        if (turn > 0) {
          backend_.Copy(heads, packed);
        }
        for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
          const int64_t first = sequence * shape.tokens;
          const Tensor mine = TokensOf(shape, part, sequence, sp_.rank());
          if (turn == 0) {
            backend_.Copy(heads.Rows(first, shape.tokens), mine);
          } else {
            transfers.push_back({.peer = peer,
                                 .send = packed.Rows(first, shape.tokens),
                                 .there = mine,
                                 .receive = TokensOf(shape, part, sequence, peer)});
          }
        }
      }
    }
    return transfers.empty() ? Operation() : sp_.Exchange(transfers);
  }

  // The way back.
  absl::Status TokensForHeads(const AttentionShape& shape, Tensor whole,
                              const std::vector<Tensor>& locals) {
    const int count = static_cast<int>(locals.size());
    const int rank = sp_.rank();
    std::vector<PeerTransfer> transfers;
    transfers.reserve(static_cast<size_t>(shape.batch * sp_.size() * count));
    for (int turn = 1; turn < sp_.size(); ++turn) {
      const int peer = Peer(turn);
      for (int index = 0; index < count; ++index) {
        const Tensor part = PartOf(whole, count, index);
        for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
          const int64_t first = sequence * shape.tokens;
          transfers.push_back({.peer = peer,
                               .send = TokensOf(shape, part, sequence, peer),
                               .there = Packed(count, index, rank).Rows(first, shape.tokens),
                               .receive = Packed(count, index, peer).Rows(first, shape.tokens)});
        }
      }
    }
    Operation exchange = transfers.empty() ? Operation() : sp_.Exchange(transfers);
    for (int index = 0; index < count; ++index) {
      const Tensor heads = HeadsOf(shape, locals[static_cast<size_t>(index)], rank);
      for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
        backend_.Copy(TokensOf(shape, PartOf(whole, count, index), sequence, rank),
                      heads.Rows(sequence * shape.tokens, shape.tokens));
      }
    }
    LASP_RETURN_IF_ERROR(WaitFor(exchange));
    for (int turn = 1; turn < sp_.size(); ++turn) {
      const int peer = Peer(turn);
      for (int index = 0; index < count; ++index) {
        backend_.Copy(Packed(count, index, peer),
                      HeadsOf(shape, locals[static_cast<size_t>(index)], peer));
      }
    }
    return absl::OkStatus();
  }

  Backend& backend_;
  Communicator& sp_;
  // What goes to each rank or has come from it.
  Tensor packed_;
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
