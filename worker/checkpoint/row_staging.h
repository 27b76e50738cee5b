// Matrices that the ranks of an SP group hold by columns, once more by rows: what a rank saves of
// them is then one piece of the whole tensor, and not one for each of its rows.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/parameter_shards.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// For the training thread.
class RowStaging {
 public:
  struct Ranks {
    // Its ranks hold the columns in their order, and divide the rows. Outlives this.
    Communicator* group = nullptr;
    // Those that hold the same columns in other such groups: each saves a part. Outlives this.
    Communicator* replicas = nullptr;
    // What of the tensors this rank has, in the order of its parameters, where the replicas own
    // them apart; none: all.
    std::optional<std::vector<TensorShare>> owned = {};
  };

  // Takes room for this rank's rows of all of `cuts`, of the types of `tensors`, of which
  // the first is the widest. The backend must outlive this.
  RowStaging(std::vector<ColumnCut> cuts, const TrainingTensors& tensors, Backend* backend,
             const Ranks& ranks, Arena& arena);

  // From `tensors`, of this rank's parameters. All ranks of the group and of the replicas call it;
  // errors of the communicators.
  absl::Status Fill(const TrainingTensors& tensors);

  // What Fill leaves, and what of it this rank saves: where that lies in the whole model.
  const TrainingTensors& tensors() const { return staged_; }

  const std::vector<TensorShare>& shares() const { return saved_; }

 private:
  // This rank's columns of a matrix, whoever of the replicas has them.
  absl::StatusOr<Tensor> ColumnsOf(const ColumnCut& cut, Tensor tensor);
  absl::Status FillOne(Tensor columns, Tensor rows);

  const std::vector<ColumnCut> cuts_;
  Backend& backend_;
  Communicator& group_;
  Communicator& replicas_;
  const std::optional<std::vector<TensorShare>> owned_;
  std::vector<TensorShare> shares_;  // one a cut
  std::vector<TensorShare> saved_;
  TrainingTensors staged_;
  Tensor received_;
  // Where the replicas own them apart.
  Tensor gathered_;
  Tensor narrowed_;
};

// What of `ranges`, in the order of this rank's parameters, none of `cuts` has.
std::vector<TensorShare> Without(const std::vector<ColumnCut>& cuts,
                                 const std::vector<TensorShare>& ranges);

}  // namespace lasp::worker
