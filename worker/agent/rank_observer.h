// What the supervisor tells of its ranks.
#pragma once

#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

// Called on the supervisor's thread, in the order in which things happened; must not block.
class RankObserver {
 public:
  virtual ~RankObserver() = default;
  virtual void OnStarted(const lasp::v1::Assignment& assignment) = 0;
  virtual void OnAddress(const lasp::v1::RankAddress& address) = 0;
  virtual void OnReady(const lasp::v1::RankReady& ready) = 0;
  virtual void OnStep(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step) = 0;
  // Its part of a checkpoint is written, or never will be.
  virtual void OnShard(const lasp::v1::ShardWritten& shard) = 0;
  virtual void OnCheckpoints(const lasp::v1::Fence& fence,
                             const lasp::internal::v1::CheckpointTotals& totals) = 0;
  // The process is gone, or was never started. May come twice for one rank.
  virtual void OnEnded(const lasp::v1::RankExited& exited) = 0;
};

}  // namespace lasp::worker
