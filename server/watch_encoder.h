// The bytes of watch events. Hundreds of watches send the same change: it is encoded once.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <string>
#include <vector>

#include "proto/rpc/mutex.h"
#include "server/watch_hub.h"

namespace lasp::server {

// Keeps the events of the last changes, shared by reference count. Thread-safe.
class WatchEncoder {
 public:
  explicit WatchEncoder(const WatchHub* hub) : hub_(hub), recent_(kKept) {}

  // A serialised WatchTrainingJobsResponse with `updated` or `deleted_name`.
  grpc::Slice Change(const JobChange& change);
  // One with `removed_name`: the change after which a filter no longer selects the job.
  grpc::Slice Removal(const JobChange& change) const;
  // One with a bookmark.
  static grpc::Slice Bookmark(bool snapshot_end, const std::string& resume_token);

  // A message that is one event.
  static grpc::ByteBuffer Single(const grpc::Slice& event);
  // A message whose batch holds the events, of which there is at least one. `resume_token` is that
  // of the last. The events' bytes are shared, not copied.
  static grpc::ByteBuffer Batch(const std::vector<grpc::Slice>& events,
                                const std::string& resume_token);

 private:
  // About 1.5 KB each.
  static constexpr size_t kKept = 2'048;

  struct Entry {
    int64_t revision = 0;
    grpc::Slice bytes;
  };

  std::string Encode(const JobChange& change) const;

  const WatchHub* const hub_;
  Mutex mutex_;
  // By revision modulo its size.
  std::vector<Entry> recent_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
