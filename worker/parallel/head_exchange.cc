#include "worker/parallel/head_exchange.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// One of the sequences in a Packed() of a rank with so many tokens.
Tensor SequenceOf(Tensor packed, int64_t sequence, int64_t tokens) {
  return packed.Rows(sequence * tokens, tokens);
}

// What is sent and received of no tokens is nothing.
Tensor OrNone(Tensor tensor) { return tensor.rows > 0 ? tensor : Tensor{}; }

}  // namespace

void HeadExchange::TakeScratch(int64_t views, int64_t local_rows, int64_t whole_columns,
                               Arena& arena) {
  room_ = local_rows * whole_columns;
  packed_ =
      arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), group_.size(), views * room_);
}

Tensor HeadExchange::Packed(size_t place, int rank, int64_t rows, int64_t columns) const {
  return packed_.Rows(rank, 1)
      .Columns(static_cast<int64_t>(place) * room_, rows * columns)
      .Reshape(rows, columns);
}

Operation HeadExchange::HeadsForTokens(int64_t batch, const SequenceSlices& slices,
                                       const std::vector<BothViews>& views, size_t first_place) {
  const int64_t tokens = slices.Of(group_.rank());
  std::vector<PeerTransfer> transfers;
  transfers.reserve(static_cast<size_t>(batch * group_.size()) * views.size());
  for (int turn = 0; turn < group_.size(); ++turn) {
    const int peer = Peer(turn);
    for (size_t index = 0; index < views.size(); ++index) {
      const Tensor heads = HeadsOf(views[index].local, peer);
      const Tensor packed =
          Packed(first_place + index, peer, batch * tokens, views[index].whole.columns);
      if (turn > 0 && tokens > 0) {
        backend_.Copy(heads, packed);
      }
      for (int64_t sequence = 0; sequence < batch; ++sequence) {
        const Tensor mine = TokensOf(slices, views[index].whole, sequence, group_.rank());
        if (turn > 0) {
          transfers.push_back(
              {.peer = peer,
               .send = OrNone(SequenceOf(packed, sequence, tokens)),
               .there = mine,
               .receive = OrNone(TokensOf(slices, views[index].whole, sequence, peer))});
        } else if (tokens > 0) {
          backend_.Copy(SequenceOf(heads, sequence, tokens), mine);
        }
      }
    }
  }
  return transfers.empty() ? Operation() : group_.Exchange(transfers);
}

absl::Status HeadExchange::TokensForHeads(int64_t batch, const SequenceSlices& slices,
                                          const std::vector<BothViews>& views) {
  const int rank = group_.rank();
  const int64_t tokens = slices.Of(rank);
  std::vector<PeerTransfer> transfers;
  transfers.reserve(static_cast<size_t>(batch * group_.size()) * views.size());
  for (int turn = 1; turn < group_.size(); ++turn) {
    const int peer = Peer(turn);
    const int64_t peer_tokens = slices.Of(peer);
    for (size_t index = 0; index < views.size(); ++index) {
      const int64_t columns = views[index].whole.columns;
      // As the peer has it for this rank.
      const Tensor there = Packed(index, rank, batch * peer_tokens, columns);
      const Tensor packed = Packed(index, peer, batch * tokens, columns);
      for (int64_t sequence = 0; sequence < batch; ++sequence) {
        transfers.push_back({.peer = peer,
                             .send = OrNone(TokensOf(slices, views[index].whole, sequence, peer)),
                             .there = SequenceOf(there, sequence, peer_tokens),
                             .receive = OrNone(SequenceOf(packed, sequence, tokens))});
      }
    }
  }
  Operation exchange = transfers.empty() ? Operation() : group_.Exchange(transfers);
  if (tokens == 0) {
    return WaitFor(exchange);
  }
  for (const BothViews& view : views) {
    const Tensor heads = HeadsOf(view.local, rank);
    for (int64_t sequence = 0; sequence < batch; ++sequence) {
      backend_.Copy(TokensOf(slices, view.whole, sequence, rank),
                    SequenceOf(heads, sequence, tokens));
    }
  }
  LASP_RETURN_IF_ERROR(WaitFor(exchange));
  for (int turn = 1; turn < group_.size(); ++turn) {
    const int peer = Peer(turn);
    for (size_t index = 0; index < views.size(); ++index) {
      backend_.Copy(Packed(index, peer, batch * tokens, views[index].whole.columns),
                    HeadsOf(views[index].local, peer));
    }
  }
  return absl::OkStatus();
}

absl::Status HeadExchange::WaitFor(Operation& operation) {
  const Phase before = backend_.EnterPhase(Phase::kSpWait);
  absl::Status status = operation.Wait();
  backend_.EnterPhase(before);
  return status;
}

}  // namespace lasp::worker
