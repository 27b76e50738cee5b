// Notices, beside Gloo, that a peer's connection has closed.
//
// Gloo tells the waits that are under way when a connection closes. A transfer that begins in that
// moment may be told of nothing, and then waits for the whole time it is given.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// Thread-safe.
class ClosedPeers {
 public:
  // Sockets in rank order, the own place empty, watched through duplicates. A wait is ended `grace`
  // after its beginning and the closing, whichever is later: until then Gloo may do so, which knows
  // more, and reads what had come before the end. UNAVAILABLE where the system has no room.
  static absl::StatusOr<std::unique_ptr<ClosedPeers>> Watch(
      const std::vector<UniqueFd>& sockets, absl::Duration grace = absl::Seconds(3));
  ~ClosedPeers();
  ClosedPeers(const ClosedPeers&) = delete;
  ClosedPeers& operator=(const ClosedPeers&) = delete;

 private:
  struct Waiting {
    int peer = 0;
    std::function<void()> end;
    absl::Duration since;
    bool ended = false;
  };

 public:
  // One wait for a peer, as long as it lives.
  class Wait {
   public:
    // `end` is called at most once, from another thread, and not after the destructor.
    Wait(ClosedPeers* peers, int peer, std::function<void()> end);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

    // Whether it was ended because the peer is gone.
    bool ended() const;

   private:
    ClosedPeers& peers_;
    std::list<Waiting>::iterator place_;
  };

 private:
  explicit ClosedPeers(absl::Duration grace) : grace_(grace) {}

  void Run();
  // Until something is closed, or a look is due; false at the end.
  bool AwaitChange();
  void EndWaits();

  const absl::Duration grace_;
  // The watching thread's: what is open.
  std::vector<UniqueFd> sockets_;
  UniqueFd stop_;
  mutable Mutex mutex_;
  // When a peer's was seen closed, of the monotonic clock.
  std::vector<absl::Duration> closed_ GUARDED_BY(mutex_);
  std::list<Waiting> waiting_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
