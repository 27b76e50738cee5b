#include "server/rebuild_plan.h"

#include <map>
#include <set>

namespace lasp::server {
namespace {

using lasp::v1::Rebuild;
using lasp::v1::StateLeft;

// Ranks of the new generation by their host; each host's take turns at reading.
class Readers {
 public:
  explicit Readers(const std::vector<std::string>& workers) {
    for (size_t rank = 0; rank < workers.size(); ++rank) {
      ranks_[workers[rank]].push_back(static_cast<int>(rank));
    }
  }

  bool On(const std::string& worker) const { return ranks_.contains(worker); }

  int Next(const std::string& worker) {
    const std::vector<int>& ranks = ranks_[worker];
    return ranks[static_cast<size_t>(turns_[worker]++) % ranks.size()];
  }

 private:
  std::map<std::string, std::vector<int>> ranks_;
  std::map<std::string, int> turns_;
};

std::optional<Rebuild> Cover(const LeftStates& left, int64_t step, Readers readers) {
  // By their first element, by which they are told apart; which of two that are alike is taken does
  // not matter.
  std::map<int64_t, const LeftState*> shares;
  const StateLeft* first = nullptr;
  for (const LeftState& share : left.states) {
    if (share.state.state().step() != step || share.state.pieces().empty() ||
        !readers.On(share.worker_id)) {
      continue;
    }
    if (first == nullptr) {
      first = &share.state;
    }
    // The same step of one generation is the same state, to the bit.
    if (share.state.total_count() != first->total_count() ||
        share.state.state().SerializeAsString() != first->state().SerializeAsString()) {
      return std::nullopt;
    }
    shares.emplace(share.state.pieces(0).begin(), &share);
  }
  if (first == nullptr) {
    return std::nullopt;
  }
  Rebuild rebuild;
  rebuild.set_generation(left.generation);
  *rebuild.mutable_state() = first->state();
  std::map<int64_t, int64_t> pieces;
  for (const auto& [begin, share] : shares) {
    lasp::v1::RebuildPart& part = *rebuild.add_parts();
    part.set_reader(readers.Next(share->worker_id));
    *part.mutable_pieces() = share->state.pieces();
    *part.mutable_shard() = share->state.shard();
    for (const lasp::v1::StatePiece& piece : share->state.pieces()) {
      if (!pieces.emplace(piece.begin(), piece.count()).second) {
        return std::nullopt;
      }
    }
  }
  int64_t end = 0;
  for (const auto& [begin, count] : pieces) {
    if (begin != end) {
      return std::nullopt;
    }
    end += count;
  }
  return end == first->total_count() ? std::optional<Rebuild>(std::move(rebuild)) : std::nullopt;
}

}  // namespace

std::optional<Rebuild> PlanRebuild(const LeftStates& left, const std::vector<std::string>& workers,
                                   int64_t after_step) {
  std::set<int64_t, std::greater<>> steps;
  for (const LeftState& share : left.states) {
    if (share.state.state().step() > after_step) {
      steps.insert(share.state.state().step());
    }
  }
  for (const int64_t step : steps) {
    if (std::optional<Rebuild> rebuild = Cover(left, step, Readers(workers)); rebuild.has_value()) {
      return rebuild;
    }
  }
  return std::nullopt;
}

}  // namespace lasp::server
