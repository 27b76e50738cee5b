// A ring in which each rank's block of keys and values visits later ranks of its group, or all, and
// the gradients that it gets there go home: what ring attention (arXiv 2310.01889) sends.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/tensor.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Whom a block visits.
enum class RingVisits : uint8_t {
  kLaterRanks,
  kAllRanks,  // past the last rank the first follows
};

// Of a block.
struct BlockRows {
  int64_t begin = 0;
  int64_t size = 0;
};

// One layer at a time. After `step` steps a rank has the block of the rank so many before it, where
// it comes by (Sees). Errors are those of the communicator. Not thread-safe.
class KeyValueRing {
 public:
  // The pointers must outlive this.
  KeyValueRing(Backend* backend, Communicator* group, RingVisits visits = RingVisits::kLaterRanks)
      : backend_(*backend), group_(*group), around_(visits == RingVisits::kAllRanks) {}

  // For blocks of this size, which all ranks' have.
  void TakeScratch(int64_t rows, int64_t columns, Arena& arena);

  bool Sees(int step) const { return step <= (around_ ? group_.size() - 1 : group_.rank()); }

  // Where this rank's own block is to be written, once nothing of the layer before is under way.
  absl::StatusOr<Tensor> Own();
  // It has been written, and sets out.
  void SetOut();
  // The block of a step from 1 on, which Sees; it goes on while the caller computes.
  absl::StatusOr<Tensor> Visitor(int step);

  // The gradient of this rank's own block, to be written before the first SendHome.
  Tensor own_gradient() const { return own_gradient_; }

  // Where what a step's visitor gets here is to be written before its SendHome.
  Tensor VisitorGradient(int step) const { return parts_[Turn(step)]; }

  // Of every step from 1 to size - 1, seen or not: sends the visitor's gradient to the rank that it
  // came from, and adds to own_gradient what arrived a step before. As many bytes as if gradients
  // went on with their block and then home.
  absl::Status SendHome(int step);
  // Of some rows alone: those of the visitor that get a gradient here, and those of this rank's own
  // block that get one on the rank so many steps on.
  absl::Status SendHome(int step, BlockRows visitor, BlockRows own);
  // Adds the last of them.
  absl::Status EndHome();

  // Waits until nothing is under way any more.
  absl::Status Finish() { return WaitFor(travel_); }

 private:
  static size_t Turn(int step) { return static_cast<size_t>(step) % 2; }

  // The rank so many steps on, or before; negative or too large where there is none.
  int After(int step) const {
    const int rank = group_.rank() + step;
    return around_ ? (rank + group_.size()) % group_.size() : rank;
  }

  // What this rank had a step ago goes on to the next, and what that of the rank before had comes.
  // No rank passes on what no later rank sees.
  Operation Travel(int step);
  absl::Status AddArrived();
  absl::Status WaitFor(Operation& operation);

  Backend& backend_;
  Communicator& group_;
  const bool around_;
  // In turn: one is computed on and goes on while the next comes.
  std::array<Tensor, 2> visiting_;
  Tensor own_gradient_;
  std::array<Tensor, 2> parts_;
  std::array<Tensor, 2> arrived_;
  Operation travel_;
  Operation home_;
  // What comes home with it, and where it belongs; empty where nothing does.
  Tensor coming_;
  Tensor its_place_;
};

}  // namespace lasp::worker
