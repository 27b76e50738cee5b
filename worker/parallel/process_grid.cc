#include "worker/parallel/process_grid.h"

#include <numeric>

#include "absl/strings/str_cat.h"

namespace lasp::worker {

absl::StatusOr<ProcessGrid> ProcessGrid::Create(int rank, int sp_size, int dp_size) {
  if (sp_size < 1 || dp_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("SP size ", sp_size, " and DP size ", dp_size, " must be at least 1"));
  }
  if (rank < 0 || rank >= sp_size * dp_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " lies outside a world of SP ", sp_size, " x DP ", dp_size));
  }
  return ProcessGrid(rank, sp_size, dp_size);
}

std::vector<int> ProcessGrid::World() const {
  std::vector<int> ranks(static_cast<size_t>(world_size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

std::vector<int> ProcessGrid::SpGroup() const {
  std::vector<int> ranks(static_cast<size_t>(sp_size_));
  std::iota(ranks.begin(), ranks.end(), dp_rank() * sp_size_);
  return ranks;
}

std::vector<int> ProcessGrid::DpGroup() const {
  std::vector<int> ranks;
  ranks.reserve(static_cast<size_t>(dp_size_));
  for (int replica = 0; replica < dp_size_; ++replica) {
    ranks.push_back(replica * sp_size_ + sp_rank());
  }
  return ranks;
}

}  // namespace lasp::worker
