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
  std::vector<PeerTransfer> transfers;
  if (Sees(step)) {
    transfers.push_back({.peer = group_.rank() - step,
                         .send = parts_[Turn(step)],
                         .there = arrived_[Turn(step)],
                         .receive = {}});
  }
  if (group_.rank() + step < group_.size()) {
    transfers.push_back(
        {.peer = group_.rank() + step, .send = {}, .there = {}, .receive = arrived_[Turn(step)]});
  }
  Operation home = transfers.empty() ? Operation() : group_.Exchange(transfers);
  LASP_RETURN_IF_ERROR(AddArrived(step - 1));
  home_ = std::move(home);
  return absl::OkStatus();
}

absl::Status KeyValueRing::EndHome() { return AddArrived(group_.size() - 1); }

Operation KeyValueRing::Travel(int step) {
  std::vector<PeerTransfer> transfers;
  if (group_.rank() + 1 < group_.size() && Sees(step - 1)) {
    transfers.push_back({.peer = group_.rank() + 1,
                         .send = visiting_[Turn(step - 1)],
                         .there = visiting_[Turn(step)],
                         .receive = {}});
  }
  if (Sees(step)) {
    transfers.push_back(
        {.peer = group_.rank() - 1, .send = {}, .there = {}, .receive = visiting_[Turn(step)]});
  }
  return transfers.empty() ? Operation() : group_.Exchange(transfers);
}

absl::Status KeyValueRing::AddArrived(int step) {
  LASP_RETURN_IF_ERROR(WaitFor(home_));
  if (step > 0 && group_.rank() + step < group_.size()) {
    backend_.Axpy(1, arrived_[Turn(step)], own_gradient_);
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
