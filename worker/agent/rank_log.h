// The log of one rank on the agent's disk: files of bounded size, the oldest removed when there are
// too many. Bytes are counted from the rank's start, over all files, and keep their numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/mutex.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

struct RankLogLimits {
  int64_t file_bytes = 16 << 20;
  int files = 4;
};

// Append and Close belong to one thread; all else is thread-safe.
class RankLog {
 public:
  // A piece of the log, whole lines. Where `offset` is beyond the one asked for, the bytes between
  // are gone, and `data` begins with a line that says how many.
  struct Piece {
    int64_t offset = 0;
    std::string data;
  };

  // Continues what lies in `folder`, which is made where it is missing.
  static absl::StatusOr<std::shared_ptr<RankLog>> Open(const std::string& folder,
                                                       const RankLogLimits& limits);

  // `lines` are whole lines.
  absl::Status Append(absl::string_view lines);
  // No more will come.
  void Close();

  // At most `max_bytes`, which must hold the longest line; empty at the end.
  absl::StatusOr<Piece> Read(int64_t offset, size_t max_bytes) const;

  int64_t end() const;
  bool closed() const;
  // Whether it was removed from the disk as a whole, which happens to no log before it is closed.
  bool removed() const;

  const std::string& folder() const { return folder_; }

 private:
  struct File {
    int64_t start = 0;
    int64_t size = 0;
  };

  RankLog(std::string folder, const RankLogLimits& limits, std::vector<File> files);
  std::string Path(int64_t start) const;
  absl::Status Rotate();

  const std::string folder_;
  const RankLogLimits limits_;
  UniqueFd descriptor_;
  mutable Mutex mutex_;
  std::vector<File> files_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace lasp::worker
