#include "worker/parallel/zigzag_exchange.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

constexpr int kPlaces = 2;

}  // namespace

void ZigzagExchange::TakeScratch(int64_t rows, int64_t columns, Arena& arena) {
  for (Tensor& packed : packed_) {
    packed = arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), kPlaces,
                        rows / kPlaces * columns);
  }
}

Tensor ZigzagExchange::Packed(size_t way, int half, Tensor slice) const {
  return packed_[way]
      .Rows(half, 1)
      .Columns(0, slice.count() / kPlaces)
      .Reshape(slice.rows / kPlaces, slice.columns);
}

Operation ZigzagExchange::Scatter(int64_t batch, const ZigzagViews& views, size_t way) {
  const int rank = group_.rank();
  std::vector<PeerTransfer> transfers;
  for (int place = 0; place < kPlaces; ++place) {
    // Of the slice's two chunks the one that such a place is for.
    const int peer = chunks_.RankOf(2 * rank + place);
    const int source = chunks_.At(rank, place) / 2;
    const Tensor packed = Packed(way, place, views.slice);
    const Tensor to = peer == rank ? Place(views.zigzag, place) : packed;
    for (int64_t sequence = 0; sequence < batch; ++sequence) {
      const int64_t tokens = to.rows / batch;
      backend_.Copy(Half(views.slice, batch, sequence, place), to.Rows(sequence * tokens, tokens));
    }
    if (peer != rank) {
      const Tensor there = Place(views.zigzag, place);
      transfers.push_back({.peer = peer, .send = packed, .there = there, .receive = {}});
      transfers.push_back({.peer = source, .send = {}, .there = {}, .receive = there});
    }
  }
  return transfers.empty() ? Operation() : group_.Exchange(transfers);
}

absl::Status ZigzagExchange::Gather(int64_t batch, const std::vector<ZigzagViews>& views) {
  const int rank = group_.rank();
  std::vector<PeerTransfer> transfers;
  for (size_t way = 0; way < views.size(); ++way) {
    for (int place = 0; place < kPlaces; ++place) {
      const int home = chunks_.At(rank, place) / 2;
      if (home != rank) {
        const Tensor packed = Packed(way, place, views[way].slice);
        transfers.push_back({.peer = home,
                             .send = Place(views[way].zigzag, place),
                             .there = packed,
                             .receive = {}});
        transfers.push_back(
            {.peer = chunks_.RankOf(2 * rank + place), .send = {}, .there = {}, .receive = packed});
      }
    }
  }
  Operation exchange = transfers.empty() ? Operation() : group_.Exchange(transfers);
  const Phase before = backend_.EnterPhase(Phase::kSpWait);
  absl::Status status = exchange.Wait();
  backend_.EnterPhase(before);
  LASP_RETURN_IF_ERROR(status);
  for (size_t way = 0; way < views.size(); ++way) {
    for (int place = 0; place < kPlaces; ++place) {
      const bool stayed = chunks_.RankOf(2 * rank + place) == rank;
      const Tensor from =
          stayed ? Place(views[way].zigzag, place) : Packed(way, place, views[way].slice);
      for (int64_t sequence = 0; sequence < batch; ++sequence) {
        const int64_t tokens = from.rows / batch;
        backend_.Copy(from.Rows(sequence * tokens, tokens),
                      Half(views[way].slice, batch, sequence, place));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
