// The last operations of each group of a rank: what was issued, when it began and when it ended, so
// that a rank that hangs can say where, and those that wait can say for whom.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::worker {

inline constexpr int kAllPeers = -1;
// Operations. The first waits for nobody.
inline constexpr char kLocalWork[] = "local work";
inline constexpr char kSend[] = "send";
inline constexpr char kReceive[] = "receive";
inline constexpr char kAllReduce[] = "all-reduce";
inline constexpr char kReduceScatter[] = "reduce-scatter";
inline constexpr char kBroadcast[] = "broadcast";
inline constexpr char kAllGather[] = "all-gather";
inline constexpr char kBarrier[] = "barrier";
// With several ranks at once; how many a rank issues is its own matter.
inline constexpr char kExchange[] = "exchange";

struct CollectiveRecord {
  uint32_t number = 0;  // from 1, in the order of issue; it wraps round
  const char* operation = "";
  int peer = kAllPeers;  // a rank of the world
  int64_t bytes = 0;
  // Of the monotonic clock; in the infinite past where it has not come to that.
  absl::Duration issued = -absl::InfiniteDuration();
  absl::Duration begun = -absl::InfiniteDuration();
  absl::Duration ended = -absl::InfiniteDuration();
};

// Sends and receives that have ended.
struct PeerTraffic {
  uint32_t sent = 0;
  uint32_t received = 0;
};

// Where a group stands.
struct GroupPosition {
  std::string group;
  // Numbers of the latest; 0 for none.
  uint32_t issued = 0;
  uint32_t begun = 0;
  uint32_t ended = 0;
  // What is under way; empty where nothing is.
  std::string operation;
  // The rank of the world whose data it waits for, as far as is known.
  int peer = kAllPeers;
  // Whether the training waits for it; on a device, which waits by itself, always.
  bool awaited = false;
  // By rank of the world.
  std::map<int, PeerTraffic> traffic;
};

// One group's. Thread-safe.
class CollectiveLog {
 public:
  // Begun and ended so far.
  using Progress = std::function<std::pair<uint32_t, uint32_t>()>;

  static constexpr size_t kKept = 256;

  // `members`: the group's ranks in the world.
  CollectiveLog(std::string group, std::vector<int> members, const Clock* clock)
      : group_(std::move(group)), members_(std::move(members)), clock_(*clock) {}

  // `operation` is a literal; `peer` a rank of the group.
  uint32_t Issue(const char* operation, int peer, int64_t bytes);
  void Begin(uint32_t number);
  void End(uint32_t number);
  // For whose data the one under way waits now: a rank of the group.
  void WaitFor(int peer);
  // Around a wait of the training thread for an operation of the group.
  void EnterWait();
  void LeaveWait();

  // For a device that does the work by itself: asked instead of Begin and End. Null ends it.
  void Follow(Progress progress);

  GroupPosition position() const;
  // Oldest first.
  std::vector<CollectiveRecord> Last() const;

 private:
  void Ask() const REQUIRES_LOCK(mutex_);
  CollectiveRecord* Find(uint32_t number) const REQUIRES_LOCK(mutex_);
  void NoteEnd(CollectiveRecord* record, absl::Duration now) const REQUIRES_LOCK(mutex_);
  int InWorld(int peer) const;

  const std::string group_;
  const std::vector<int> members_;
  const Clock& clock_;
  mutable Mutex mutex_;
  mutable std::deque<CollectiveRecord> records_ GUARDED_BY(mutex_);
  Progress progress_ GUARDED_BY(mutex_);
  uint32_t issued_ GUARDED_BY(mutex_) = 0;
  mutable uint32_t begun_ GUARDED_BY(mutex_) = 0;
  mutable uint32_t ended_ GUARDED_BY(mutex_) = 0;
  int waits_for_ GUARDED_BY(mutex_) = kAllPeers;
  int waits_ GUARDED_BY(mutex_) = 0;
  mutable std::map<int, PeerTraffic> traffic_ GUARDED_BY(mutex_);
};

// All groups of a rank. Thread-safe; logs live as long as this.
class CollectiveJournal {
 public:
  explicit CollectiveJournal(const Clock* clock = &SystemClock()) : clock_(*clock) {}

  CollectiveLog* Add(std::string group, std::vector<int> members);
  std::vector<const CollectiveLog*> logs() const;

 private:
  const Clock& clock_;
  mutable Mutex mutex_;
  std::deque<CollectiveLog> logs_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
