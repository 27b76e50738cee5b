// A ring in which each rank's block of keys and values visits every later rank of its group, and
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

// One layer at a time. After `step` steps a rank has the block of the rank so many before it, where
// there is one (Sees). Errors are those of the communicator. Not thread-safe.
class KeyValueRing {
 public:
  // Both must outlive this.
  KeyValueRing(Backend* backend, Communicator* group) : backend_(*backend), group_(*group) {}

  // For blocks of this size, which all ranks' have.
  void TakeScratch(int64_t rows, int64_t columns, Arena& arena);

  bool Sees(int step) const { return step <= group_.rank(); }

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
  // Adds the last of them.
  absl::Status EndHome();

  // Waits until nothing is under way any more.
  absl::Status Finish() { return WaitFor(travel_); }

 private:
  static size_t Turn(int step) { return static_cast<size_t>(step) % 2; }

  // What this rank had a step ago goes on to the next, and what that of the rank before had comes.
  // No rank passes on what no later rank sees.
  Operation Travel(int step);
  absl::Status AddArrived(int step);
  absl::Status WaitFor(Operation& operation);

  Backend& backend_;
  Communicator& group_;
  // In turn: one is computed on and goes on while the next comes.
  std::array<Tensor, 2> visiting_;
  Tensor own_gradient_;
  std::array<Tensor, 2> parts_;
  std::array<Tensor, 2> arrived_;
  Operation travel_;
  Operation home_;
};

}  // namespace lasp::worker
