// Chooses what part of which rank's log goes to the coordinator next.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log_chunk_limit.h"
#include "proto/rpc/mutex.h"
#include "worker/agent/log_folder.h"

namespace lasp::worker {

// Chunks are not acknowledged. What was sent shortly before a stream broke is sent again on the
// next, and the coordinator tells bytes that it has by their offset. Thread-safe.
class LogShipper {
 public:
  // At most `bytes_per_second` over all logs, with bursts of one second's worth. `clock` outlives
  // it.
  LogShipper(int64_t bytes_per_second, const Clock* clock);

  void Add(FencedLog log);
  // A new stream: begins again with what may not have arrived.
  void BeginSession();
  // The coordinator holds the log up to `offset`.
  void SetPosition(const lasp::v1::Fence& fence, int64_t offset);

  // Reads the next chunk, from the log after the one that had its turn, unless one waits to be
  // taken. Whether there is one: there is none where all is sent or the rate is used up. Alone
  // waits for the disk, and without the lock; one thread's at a time.
  bool Fill();
  // What was read last, if nobody has taken it.
  std::optional<lasp::v1::LogChunk> Take();
  // Both.
  std::optional<lasp::v1::LogChunk> Next();

  // Whether all that was written so far is sent.
  bool AllSent() const;
  int64_t sent_bytes() const;
  // Rotated away, or removed, before they were sent.
  int64_t dropped_bytes() const;

 private:
  struct Shipped {
    FencedLog fenced;
    // The next byte to send.
    int64_t position = 0;
    // All before it has arrived.
    int64_t arrived = 0;
    // `position` of a while ago, which becomes `arrived` when the stream has lived long enough.
    int64_t marked = 0;
    absl::Duration marked_at;
    // After a gap the coordinator asks once for what lies between; nothing more goes before that.
    absl::Duration hold_until;
  };

  void Refill(absl::Duration now) REQUIRES_LOCK(mutex_);
  // Logs of which all has arrived by now are no longer the shipper's.
  std::vector<std::shared_ptr<RankLog>> NoteArrivals(absl::Duration now) REQUIRES_LOCK(mutex_);
  // Its folder is gone, and what was not sent with it.
  void Drop(const std::shared_ptr<Shipped>& log) REQUIRES_LOCK(mutex_);
  static bool SameRank(const lasp::v1::Fence& a, const lasp::v1::Fence& b);

  const int64_t bytes_per_second_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<Shipped>> logs_ GUARDED_BY(mutex_);
  // Read, and behind its log's position already.
  std::optional<lasp::v1::LogChunk> ready_ GUARDED_BY(mutex_);
  size_t turn_ GUARDED_BY(mutex_) = 0;
  double budget_bytes_ GUARDED_BY(mutex_);
  absl::Duration refilled_at_ GUARDED_BY(mutex_);
  int64_t sent_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t dropped_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace lasp::worker
