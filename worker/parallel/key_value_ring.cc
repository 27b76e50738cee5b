#include "worker/parallel/key_value_ring.h"

#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

void KeyValueRing::TakeScratch(int64_t rows, int64_t columns, Arena& arena) {
  const auto take = [&] {
    return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), rows, columns);
  };
  visiting_ = {take(), take()};
  own_gradient_ = take();
  parts_ = {take(), take()};
  arrived_ = {take(), take()};
}

absl::StatusOr<Tensor> KeyValueRing::Own() {
  // The layer before may still be sending what lies there.
  LASP_RETURN_IF_ERROR(WaitFor(travel_));
  return visiting_[Turn(0)];
}

void KeyValueRing::SetOut() { travel_ = Travel(1); }

absl::StatusOr<Tensor> KeyValueRing::Visitor(int step) {
  LASP_RETURN_IF_ERROR(WaitFor(travel_));
  travel_ = Travel(step + 1);
  return visiting_[Turn(step)];
}

absl::Status KeyValueRing::SendHome(int step) {
  const BlockRows all{.begin = 0, .size = own_gradient_.rows};
  const bool seen_there = around_ || group_.rank() + step < group_.size();
  return SendHome(step, Sees(step) ? all : BlockRows{}, seen_there ? all : BlockRows{});
}

absl::Status KeyValueRing::SendHome(int step, BlockRows visitor, BlockRows own) {
  std::vector<PeerTransfer> transfers;
  const auto rows = [](Tensor block, BlockRows some) { return block.Rows(some.begin, some.size); };
  if (visitor.size > 0) {
    transfers.push_back({.peer = After(-step),
                         .send = rows(parts_[Turn(step)], visitor),
                         .there = rows(arrived_[Turn(step)], visitor),
                         .receive = {}});
  }
  const Tensor coming = own.size > 0 ? rows(arrived_[Turn(step)], own) : Tensor{};
  if (!coming.empty()) {
    transfers.push_back({.peer = After(step), .send = {}, .there = {}, .receive = coming});
  }
  Operation home = transfers.empty() ? Operation() : group_.Exchange(transfers);
  LASP_RETURN_IF_ERROR(AddArrived());
  home_ = std::move(home);
  coming_ = coming;
  its_place_ = rows(own_gradient_, own);
  return absl::OkStatus();
}

absl::Status KeyValueRing::EndHome() { return AddArrived(); }

Operation KeyValueRing::Travel(int step) {
  std::vector<PeerTransfer> transfers;
  const bool goes_on = around_ ? step < group_.size() : group_.rank() + 1 < group_.size();
  if (goes_on && Sees(step - 1)) {
    transfers.push_back({.peer = After(1),
                         .send = visiting_[Turn(step - 1)],
                         .there = visiting_[Turn(step)],
                         .receive = {}});
  }
  if (Sees(step)) {
    transfers.push_back(
        {.peer = After(-1), .send = {}, .there = {}, .receive = visiting_[Turn(step)]});
  }
  return transfers.empty() ? Operation() : group_.Exchange(transfers);
}

absl::Status KeyValueRing::AddArrived() {
  LASP_RETURN_IF_ERROR(WaitFor(home_));
  if (!coming_.empty()) {
    backend_.Axpy(1, coming_, its_place_);
    coming_ = {};
  }
  return absl::OkStatus();
}

absl::Status KeyValueRing::WaitFor(Operation& operation) {
  const Phase before = backend_.EnterPhase(Phase::kSpWait);
  absl::Status status = operation.Wait();
  backend_.EnterPhase(before);
  return status;
}

}  // namespace lasp::worker
