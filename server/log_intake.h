// Pieces of ranks' logs, on their way from an agent's stream into the store of logs.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "lasp/v1/worker_service.pb.h"
#include "server/agent_session.h"
#include "server/core_parts.h"

namespace lasp::server {

// Writes one chunk; blocks on the file system. What cannot be stored is counted and announced in
// the coordinator's log, and the agent sends it again. INVALID_ARGUMENT for a chunk that no agent
// sends, which should end the stream. Thread-safe.
absl::Status TakeLogChunk(const CoreParts& parts, AgentSession* session,
                          const lasp::v1::LogChunk& chunk);

// Where the log of each rank that an agent lists ends here, in the Hello's order; 0 where nothing
// of it is here. Blocks on the file system. Thread-safe.
std::vector<int64_t> LogEnds(const CoreParts& parts, const lasp::v1::Hello& hello);

}  // namespace lasp::server
