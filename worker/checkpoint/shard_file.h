// One shard on its way to the disk.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/checkpoint.pb.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// What a shard is made of.
struct ShardPiece {
  absl::string_view data;
  bool widens = false;  // bf16, of which fp32 is written
};

// Writes `pieces` one behind the other to the file `name` in `folder`, by way of `name`.tmp; a
// failure leaves neither. What is under `name` is whole, and on the disk for good when this
// returns. `path` names the file in errors, whose codes are what the system says
// (RESOURCE_EXHAUSTED for a full disk). `goes_on` is asked before each part of at most a MiB, as
// the disk takes them: CANCELLED where it says no. Gives size and digests; extents are the
// caller's.
absl::StatusOr<lasp::v1::CheckpointShard> WriteShardFile(const UniqueFd& folder,
                                                         const std::string& name,
                                                         absl::string_view path,
                                                         const std::vector<ShardPiece>& pieces,
                                                         const std::function<bool()>& goes_on);

}  // namespace lasp::worker
