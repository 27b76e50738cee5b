#include "server/rebuild_plan.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

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

// The same step of one generation is the same state, to the bit.
std::string StateKey(const StateLeft& left) {
  return absl::StrCat(left.total_count(), ":", left.state().SerializeAsString());
}

// `shares` are of one state.
std::optional<Rebuild> Cover(int64_t generation, const std::vector<const LeftState*>& shares,
                             Readers readers) {
  // By their first element, by which they are told apart; which of two that are alike is taken does
  // not matter.
  std::map<int64_t, const LeftState*> parts;
  for (const LeftState* share : shares) {
    if (!share->state.pieces().empty() && readers.On(share->worker_id)) {
      parts.emplace(share->state.pieces(0).begin(), share);
    }
  }
  Rebuild rebuild;
  rebuild.set_generation(generation);
  std::map<int64_t, int64_t> pieces;
  for (const auto& [begin, share] : parts) {
    *rebuild.mutable_state() = share->state.state();
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
  if (parts.empty() || end != parts.begin()->second->state.total_count()) {
    return std::nullopt;
  }
  return rebuild;
}

}  // namespace

std::optional<Rebuild> PlanRebuild(const LeftStates& left, const std::vector<std::string>& workers,
                                   int64_t after_step) {
  using Shares = std::vector<const LeftState*>;
  std::map<int64_t, std::map<std::string, Shares>, std::greater<>> by_step;
  for (const LeftState& share : left.states) {
    if (share.state.state().step() > after_step) {
      by_step[share.state.state().step()][StateKey(share.state)].push_back(&share);
    }
  }
  for (const auto& [step, by_state] : by_step) {
    for (const auto& [key, shares] : by_state) {
      if (auto rebuild = Cover(left.generation, shares, Readers(workers)); rebuild.has_value()) {
        return rebuild;
      }
    }
  }
  return std::nullopt;
}

bool StatesDiffer(const LeftStates& left) {
  std::map<int64_t, std::string> states;
  return std::any_of(left.states.begin(), left.states.end(), [&](const LeftState& share) {
    const std::string key = StateKey(share.state);
    return states.emplace(share.state.state().step(), key).first->second != key;
  });
}

std::string DescribeLeft(const LeftStates& left) {
  std::map<std::string, int> states;
  return absl::StrJoin(left.states, ", ", [&](std::string* text, const LeftState& share) {
    int64_t elements = 0;
    for (const lasp::v1::StatePiece& piece : share.state.pieces()) {
      elements += piece.count();
    }
    const auto number = static_cast<int>(states.size()) + 1;
    absl::StrAppend(text, "workers/", share.worker_id, ": ", elements, " of ",
                    share.state.total_count(), " elements of step ", share.state.state().step(),
                    ", state ", states.emplace(StateKey(share.state), number).first->second);
  });
}

}  // namespace lasp::server
