// Reads a committed checkpoint, and believes nothing that its digests do not bear out.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/spec/unique_fd.h"

namespace lasp {

// Reasons of its errors: what lies there is not what was written (DATA_LOSS, with `folder` and
// `file`), and what lies there cannot be read (UNAVAILABLE).
inline constexpr char kCheckpointCorrupt[] = "CHECKPOINT_CORRUPT";
inline constexpr char kCheckpointUnreadable[] = "CHECKPOINT_UNREADABLE";

// Not thread-safe.
class CheckpointReader {
 public:
  // Reads the manifest. INVALID_ARGUMENT for a folder that is not a plain path.
  static absl::StatusOr<CheckpointReader> Open(const std::string& root,
                                               const lasp::v1::CheckpointReference& reference);

  const lasp::v1::CheckpointManifest& manifest() const { return manifest_; }

  // Elements [begin, begin + count) of a tensor of the manifest into `to`: fp32, as the file has
  // them. Reads whole blocks; the last one is kept for what is asked for next.
  absl::Status Read(const std::string& tensor, int64_t begin, int64_t count, void* to);

 private:
  // Where a piece of a tensor lies.
  struct Place {
    int shard = 0;
    int64_t begin = 0;
    int64_t count = 0;
    int64_t offset_bytes = 0;
  };

  CheckpointReader(std::string folder, UniqueFd folder_fd, lasp::v1::CheckpointManifest manifest);

  absl::Status ReadBytes(int shard, int64_t offset, int64_t size, char* to);
  absl::Status OpenShard(int shard);
  absl::Status LoadBlock(int shard, int64_t block);

  const lasp::v1::CheckpointShard& shard(int index) const { return manifest_.shards(index); }

  std::string folder_;
  UniqueFd folder_fd_;
  lasp::v1::CheckpointManifest manifest_;
  // By tensor, in the order of their elements.
  std::map<std::string, std::vector<Place>> places_;
  UniqueFd open_file_;
  int open_shard_ = -1;
  int64_t block_ = -1;  // of the open shard
  std::vector<char> block_data_;
};

}  // namespace lasp
