#include "server/stall_verdict.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/proto_time.h"

namespace lasp::server {
namespace {

using lasp::v1::GroupPosition;

// A rank speaks twice a second, its agent every other second.
constexpr absl::Duration kSilent = absl::Seconds(8);

// One rank waits in an operation for another one.
struct Wait {
  int waiter = 0;
  int peer = 0;
  const GroupPosition* position = nullptr;
  // The peer has given already what is waited for, or is in the same operation: it or what lies
  // between them is at fault.
  bool unfounded = false;
};

std::string Name(const std::vector<StalledRank>& ranks, int rank) {
  return absl::StrCat("rank ", rank, " on workers/", ranks[static_cast<size_t>(rank)].worker_id);
}

std::string Names(const std::vector<StalledRank>& ranks, const std::vector<int>& which) {
  std::vector<std::string> names;
  names.reserve(which.size());
  for (const int rank : which) {
    names.push_back(Name(ranks, rank));
  }
  return absl::StrJoin(names, ", ");
}

bool IsUnderWay(const GroupPosition& position) {
  return !position.operation().empty() && position.operation() != "local work";
}

// What the rank's training waits for; null where it waits for nothing.
const GroupPosition* AwaitedOf(const lasp::v1::RankProgress& progress) {
  for (const GroupPosition& position : progress.groups()) {
    if (position.awaited() && IsUnderWay(position)) {
      return &position;
    }
  }
  return nullptr;
}

const GroupPosition* GroupOf(const lasp::v1::RankProgress& progress, const std::string& group) {
  for (const GroupPosition& position : progress.groups()) {
    if (position.group() == group) {
      return &position;
    }
  }
  return nullptr;
}

uint32_t Sent(const GroupPosition& position, int peer) {
  for (const lasp::v1::PeerTraffic& traffic : position.traffic()) {
    if (traffic.peer() == peer) {
      return traffic.sent();
    }
  }
  return 0;
}

uint32_t Received(const GroupPosition& position, int peer) {
  for (const lasp::v1::PeerTraffic& traffic : position.traffic()) {
    if (traffic.peer() == peer) {
      return traffic.received();
    }
  }
  return 0;
}

bool IsUnfounded(const Wait& wait, const std::vector<StalledRank>& ranks) {
  const GroupPosition* const other =
      GroupOf(ranks[static_cast<size_t>(wait.peer)].progress, wait.position->group());
  if (other == nullptr) {
    return false;
  }
  if (wait.position->operation() == "receive") {
    return Sent(*other, wait.waiter) > Received(*wait.position, wait.peer);
  }
  if (wait.position->operation() == "send") {
    return Received(*other, wait.waiter) > Sent(*wait.position, wait.peer);
  }
  if (wait.position->operation() == "exchange") {
    // With several ranks, and not as often on each: nothing says which of its messages has come.
    return false;
  }
  // Collective operations have the same numbers on all ranks; they wrap round.
  return static_cast<int32_t>(other->begun() - wait.position->begun()) >= 0;
}

std::optional<StallVerdict> FindSilent(const std::vector<StalledRank>& ranks) {
  StallVerdict verdict;
  absl::Duration longest;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const absl::Duration silence = FromProtoDuration(ranks[rank].progress.silence());
    if (silence >= kSilent) {
      verdict.culprits.push_back(static_cast<int>(rank));
      longest = std::max(longest, silence);
    }
  }
  if (verdict.culprits.empty()) {
    return std::nullopt;
  }
  verdict.certain = true;
  verdict.why = absl::StrCat(Names(ranks, verdict.culprits), " has not spoken for ",
                             absl::ToInt64Seconds(longest),
                             " s: the process is stopped, or deep in the kernel");
  return verdict;
}

std::optional<StallVerdict> FindBusy(const std::vector<StalledRank>& ranks) {
  StallVerdict verdict;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (AwaitedOf(ranks[rank].progress) == nullptr) {
      verdict.culprits.push_back(static_cast<int>(rank));
    }
  }
  if (verdict.culprits.empty() || verdict.culprits.size() == ranks.size()) {
    return std::nullopt;
  }
  verdict.certain = true;
  verdict.why =
      absl::StrCat(Names(ranks, verdict.culprits),
                   " waits for no other rank and does not come on, while the others wait");
  return verdict;
}

StallVerdict FindAmongWaits(const std::vector<StalledRank>& ranks) {
  std::vector<Wait> waits;
  std::map<int, int> waited_for;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const GroupPosition* const position = AwaitedOf(ranks[rank].progress);
    if (position == nullptr || position->peer() < 0 ||
        position->peer() >= static_cast<int>(ranks.size())) {
      continue;
    }
    Wait wait{.waiter = static_cast<int>(rank), .peer = position->peer(), .position = position};
    wait.unfounded = IsUnfounded(wait, ranks);
    ++waited_for[wait.peer];
    waits.push_back(wait);
  }
  // A wait for what has been given: of those the one whose waiter most others wait for.
  const auto worst =
      std::max_element(waits.begin(), waits.end(), [&waited_for](const Wait& a, const Wait& b) {
        return a.unfounded != b.unfounded ? b.unfounded
                                          : waited_for[a.waiter] < waited_for[b.waiter];
      });
  if (worst == waits.end() || !worst->unfounded) {
    return {.culprits = {},
            .certain = false,
            .why =
                "all ranks are inside the same operations, and none is behind the others: the "
                "network or a device"};
  }
  const Wait& wait = *worst;
  StallVerdict verdict;
  verdict.culprits = {wait.waiter};
  verdict.why = absl::StrCat(
      Name(ranks, wait.waiter), " waits in ", wait.position->operation(), " ",
      wait.position->begun(), " of the ", wait.position->group(), " group for ",
      Name(ranks, wait.peer), ", which ",
      wait.position->operation() == "receive" ? "has sent what it waits for" : "has come to it too",
      ": it, or the connection between them");
  return verdict;
}

}  // namespace

StallVerdict JudgeStall(const std::vector<StalledRank>& ranks) {
  if (const auto silent = FindSilent(ranks)) {
    return *silent;
  }
  if (const auto busy = FindBusy(ranks)) {
    return *busy;
  }
  return FindAmongWaits(ranks);
}

}  // namespace lasp::server
