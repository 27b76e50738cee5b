// Who keeps an agent's ranks, as the agent sees it: the supervisor, whose ranks are processes, or a
// simulation's.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

// A rank that is alive, and what the coordinator must hear again after a reconnect.
struct LiveRank {
  // Its progress as old as `spoken`.
  lasp::v1::RankStatus status;
  // When it last said how it comes on, of the monotonic clock.
  absl::Duration spoken;
  // Empty until the rank has said it. Never logged: rank 0's may hold NCCL's id.
  std::string address;
  // Of its RankReady.
  std::string gemm_record;
};

// Thread-safe. Calls return at once; what comes of them is told to a RankObserver.
class RankKeeper {
 public:
  virtual ~RankKeeper() = default;

  // Starts a rank. Of a fence that runs already: nothing; of one that has ended: its end is told
  // again. An older rank in the slot, or of an older generation of the job, is killed first.
  virtual void Launch(const lasp::v1::Assignment& assignment) = 0;
  virtual void SetPeers(const lasp::v1::PeerAddresses& peers) = 0;
  virtual void Train(const lasp::v1::Start& start) = 0;
  // A rank that is not here is told as ended.
  virtual void Stop(const lasp::v1::Stop& stop) = 0;
  // Every rank: at a step boundary, or killed after `grace`.
  virtual void DrainAll(absl::Duration grace) = 0;
  virtual void KillAll(const std::string& reason) = 0;

  // Those that live, and after them those that wait for a slot.
  virtual std::vector<LiveRank> Ranks() const = 0;
  // Waits until every call made so far has been carried out; false when the time ran out.
  virtual bool WaitUntilSettled(absl::Duration timeout) const = 0;
  // False when the time ran out before the last rank was gone.
  virtual bool WaitUntilEmpty(absl::Duration timeout) const = 0;
};

}  // namespace lasp::worker
