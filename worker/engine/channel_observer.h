// Sends a rank's progress to its agent.
#pragma once

#include "absl/status/status.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/engine/rank_channel.h"
#include "worker/engine/train_loop.h"

namespace lasp::worker {

// Errors are those of the channel, which must outlive this. As thread-safe as RankChannel::Write.
class ChannelObserver final : public TrainObserver {
 public:
  explicit ChannelObserver(RankChannel* channel) : channel_(*channel) {}

  absl::Status OnPhase(lasp::v1::RankStatus::Phase phase) override;
  absl::Status OnStep(const lasp::internal::v1::RankStep& step) override;
  absl::Status OnCheckpoints(const lasp::internal::v1::CheckpointTotals& totals) override;
  void OnShard(const lasp::v1::ShardWritten& shard) override;

 private:
  RankChannel& channel_;
};

}  // namespace lasp::worker
