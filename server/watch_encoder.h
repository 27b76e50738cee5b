// The bytes of watch events. Hundreds of watches send the same change: it is encoded once.
#pragma once

#include <grpcpp/support/byte_buffer.h>

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
  grpc::ByteBuffer Change(const JobChange& change);
  // One with a bookmark.
  static grpc::ByteBuffer Bookmark(bool snapshot_end, const std::string& resume_token);

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
