// How much of a rank's log goes into one message of the worker plane.
#pragma once

#include <cstddef>

namespace lasp {

// Of LogChunk.data, in bytes. Agents send no more, the coordinator takes no more. Small enough that
// a heartbeat never waits behind much of a log.
inline constexpr size_t kMaxLogChunkBytes = 256 << 10;

}  // namespace lasp
