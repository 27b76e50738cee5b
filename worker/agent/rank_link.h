// The agent's end of a rank's channel. Unlike the rank's it never blocks: one thread serves all
// ranks, and a rank that hangs must not hold up the others.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// Not thread-safe.
class RankLink {
 public:
  // `descriptor` is a non-blocking stream socket.
  explicit RankLink(UniqueFd descriptor) : descriptor_(std::move(descriptor)) {}

  // Queues a message and writes what the socket takes. RESOURCE_EXHAUSTED where the rank has left
  // too much unread; a rank that is gone is no error here, its end is noticed elsewhere.
  absl::Status Send(const lasp::internal::v1::ToRank& message);
  // Writes more of what is queued; call when the socket is writable.
  void Flush();

  // Takes messages that have arrived whole, in order, of at most 1 MiB of the stream; none where
  // nothing has come. DATA_LOSS for a torn or oversized frame.
  absl::StatusOr<std::vector<lasp::internal::v1::FromRank>> Receive();

  bool wants_write() const { return !unwritten_.empty(); }

  // Whether the rank has closed its end.
  bool closed() const { return closed_; }

  int descriptor() const { return descriptor_.get(); }

 private:
  const UniqueFd descriptor_;
  std::string unwritten_;
  std::string unparsed_;
  bool closed_ = false;
};

}  // namespace lasp::worker
