// The life of one rank: set up, meet the peers, train, say how it ended.
#pragma once

#include "lasp/internal/v1/rank_channel.pb.h"
#include "worker/engine/channel_listener.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {

// Speaks proto/lasp/internal/v1/rank_channel.proto to the agent. All pointers must outlive the
// call. Returns the process's exit code (proto/rpc/rank_exit_code.h), after it has told the agent.
int RunRank(RankChannel* channel, ChannelListener* listener, const DrainRequest* drain);

}  // namespace lasp::worker
