// Where a rank stands in the mesh: world = SP x DP. SP groups are contiguous ranks, DP groups
// strided: world 8 with SP 4 gives SP (0-3)(4-7) and DP (0,4)(1,5)(2,6)(3,7).
#pragma once

#include <vector>

#include "absl/status/statusor.h"

namespace lasp::worker {

// Immutable.
class ProcessGrid {
 public:
  // INVALID_ARGUMENT where the sizes are not positive or `rank` lies outside sp_size * dp_size.
  static absl::StatusOr<ProcessGrid> Create(int rank, int sp_size, int dp_size);

  int rank() const { return rank_; }

  int world_size() const { return sp_size_ * dp_size_; }

  int sp_size() const { return sp_size_; }

  int dp_size() const { return dp_size_; }

  // The position in the sequence.
  int sp_rank() const { return rank_ % sp_size_; }

  // The replica.
  int dp_rank() const { return rank_ / sp_size_; }

  // Ranks of the world, in order of their place in the group.
  std::vector<int> World() const;
  std::vector<int> SpGroup() const;
  std::vector<int> DpGroup() const;

 private:
  ProcessGrid(int rank, int sp_size, int dp_size)
      : rank_(rank), sp_size_(sp_size), dp_size_(dp_size) {}

  int rank_;
  int sp_size_;
  int dp_size_;
};

}  // namespace lasp::worker
