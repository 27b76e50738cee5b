#include <algorithm>
#include <vector>

#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

// Some of a layer's heads, of some of its sequences.
struct StateBlock {
  AttentionShape shape;
  int64_t row = 0;  // of the state

  Tensor Of(Tensor state) const {
    return state.empty() ? Tensor{} : state.Rows(row, shape.state_matrix_rows());
  }
};

// Each as large as the others, within one head or sequence.
std::vector<StateBlock> CutState(const AttentionShape& shape, int64_t state_bytes,
                                 int64_t block_bytes) {
  const int64_t wanted = std::max<int64_t>(1, state_bytes / block_bytes);
  // Of whole sequences, or each of several blocks of heads.
  const int64_t groups = std::min(wanted, shape.batch);
  const int64_t head_blocks = std::min((wanted + groups - 1) / groups, shape.heads);
  std::vector<StateBlock> blocks;
  blocks.reserve(static_cast<size_t>(groups * head_blocks));
  int64_t row = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = shape.batch * group / groups;
    const int64_t sequences = shape.batch * (group + 1) / groups - first;
    for (int64_t block = 0; block < head_blocks; ++block) {
      const int64_t head = shape.heads * block / head_blocks;
      AttentionShape part = shape;
      part.batch = sequences;
      part.heads = shape.heads * (block + 1) / head_blocks - head;
      part.slopes = shape.slopes.Columns(head, part.heads);
      part.theta = shape.theta.Rows(head, part.heads);
      part.document_marks = shape.document_marks.Rows(first, sequences);
      blocks.push_back({.shape = part, .row = row});
      row += part.state_matrix_rows();
    }
  }
  return blocks;
}

class ScanPassing final : public StatePassing {
 public:
  ScanPassing(Backend* backend, Communicator* group, int64_t block_bytes)
      : backend_(*backend), group_(*group), block_bytes_(block_bytes) {}

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    const auto state = [&] {
      return arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                        widest.state_matrix_rows(), widest.head_size);
    };
    local_ = state();
    outgoing_ = state();
  }

  Tensor Local(const AttentionShape& shape) const override {
    return local_.Rows(0, shape.state_matrix_rows());
  }

  StateFlowEnds Start(const AttentionShape& shape, const StateFlow& flow) override {
    const FlowOrder order(group_, flow.gradient);
    // A sequence's sums of keys lie apart from its products: who must know which are whose takes
    // all at once.
    const bool whole = shape.normalised && !flow.documents.empty();
    const std::vector<StateBlock> blocks =
        CutState(shape, flow.local.bytes(), whole ? flow.local.bytes() : block_bytes_);
    StateFlowEnds ends;
    // In turn n block n comes while block n - 1 goes on.
    for (size_t turn = 0; turn <= blocks.size(); ++turn) {
      std::vector<PeerTransfer> transfers;
      if (turn > 0 && !order.last()) {
        const StateBlock& going = blocks[turn - 1];
        transfers.push_back({.peer = order.next(),
                             .send = going.Of(outgoing_),
                             .there = going.Of(flow.in_place),
                             .receive = {}});
      }
      if (turn < blocks.size() && !order.first()) {
        transfers.push_back({.peer = order.previous(),
                             .send = {},
                             .there = {},
                             .receive = blocks[turn].Of(flow.in)});
      }
      if (!transfers.empty()) {
        ends.sent = group_.Exchange(transfers);
      }
      if (turn == blocks.size()) {
        break;
      }
      if (!order.first()) {
        ends.received = ends.sent;
      }
      if (!order.last()) {
        ends.read = group_.Run([this, flow, block = blocks[turn]] {
          Hop(backend_, flow.gradient, block.shape, block.Of(flow.in), block.Of(flow.local),
              block.Of(outgoing_));
          return absl::OkStatus();
        });
      }
    }
    return ends;
  }

  void FormOut(const AttentionShape& shape, const StateFlow& flow, Tensor out) override {
    Hop(backend_, flow.gradient, shape, flow.in, flow.local, out);
  }

 private:
  Backend& backend_;
  Communicator& group_;
  const int64_t block_bytes_;
  Tensor local_;
  Tensor outgoing_;
};

}  // namespace

std::unique_ptr<StatePassing> CreateScanPassing(Backend* backend, Communicator* group,
                                                int64_t block_bytes) {
  return std::make_unique<ScanPassing>(backend, group, block_bytes);
}

}  // namespace lasp::worker
