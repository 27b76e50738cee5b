#include "worker/engine/channel_observer.h"

namespace lasp::worker {

using ::lasp::internal::v1::FromRank;

absl::Status ChannelObserver::OnPhase(lasp::v1::RankStatus::Phase phase) {
  FromRank message;
  message.mutable_phase()->set_phase(phase);
  return channel_.Write(message);
}

absl::Status ChannelObserver::OnStep(const lasp::internal::v1::RankStep& step) {
  FromRank message;
  *message.mutable_step() = step;
  return channel_.Write(message);
}

absl::Status ChannelObserver::OnCheckpoints(const lasp::internal::v1::CheckpointTotals& totals) {
  FromRank message;
  *message.mutable_checkpoint_totals() = totals;
  return channel_.Write(message);
}

// An agent that is gone ends this process; one that does not read is noticed at the next step.
void ChannelObserver::OnShard(const lasp::v1::ShardWritten& shard) {
  FromRank message;
  *message.mutable_shard_written() = shard;
  channel_.Write(message).IgnoreError();
}

}  // namespace lasp::worker
