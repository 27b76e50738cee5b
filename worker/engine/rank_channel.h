// The stream between an agent and one of its ranks: length-prefixed protobuf over a connected
// socket. A frame is a 4-byte little-endian length, then one message.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "proto/rpc/mutex.h"

namespace lasp::worker {

// The descriptor a rank inherits.
inline constexpr int kRankChannelDescriptor = 3;
// Larger frames are refused on both ends: a spec and the addresses of a large world fit many times.
inline constexpr uint32_t kMaxFrameBytes = 16u << 20;

// The frame of one message. INVALID_ARGUMENT above kMaxFrameBytes.
absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message);

// Blocking reads and writes over one socket. Write is thread-safe; Read belongs to one thread at a
// time; both may run at once.
class RankChannel {
 public:
  // Takes the descriptor over. `write_timeout` bounds how long a reader that does not read may hold
  // up a writer.
  explicit RankChannel(int descriptor, absl::Duration write_timeout = absl::Seconds(30));
  ~RankChannel();
  RankChannel(const RankChannel&) = delete;
  RankChannel& operator=(const RankChannel&) = delete;

  // UNAVAILABLE when the other end is gone, DEADLINE_EXCEEDED when it does not read.
  absl::Status Write(const google::protobuf::MessageLite& message);

  // Waits for the next message. False at the end of the stream; DATA_LOSS for a torn or oversized
  // frame or one that does not parse. It has no deadline of its own: the end of the peer, Shutdown
  // or a message end it.
  absl::StatusOr<bool> Read(google::protobuf::MessageLite* message);

  // Ends a Read of another thread, which then returns false. Later writes fail.
  void Shutdown();

  int descriptor() const { return descriptor_; }

 private:
  const int descriptor_;
  Mutex write_mutex_;
};

}  // namespace lasp::worker
