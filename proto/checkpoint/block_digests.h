// Digests of a shard's blocks: what is read back is what was written, or it is known which part is
// not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/checkpoint.pb.h"

struct XXH3_state_s;

namespace lasp {

inline constexpr int64_t kCheckpointBlockBytes = int64_t{4} << 20;
inline constexpr int64_t kBlockDigestBytes = 16;

// XXH3-128 in its canonical, big-endian order.
std::string BlockDigest(const void* data, size_t size);

// The digests of a file that comes piece by piece. Not thread-safe.
class BlockDigester {
 public:
  BlockDigester();
  ~BlockDigester();
  BlockDigester(const BlockDigester&) = delete;
  BlockDigester& operator=(const BlockDigester&) = delete;

  void Add(const void* data, size_t size);
  // All of them, one after the other; what was added since the last whole block is the last block.
  std::string Finish();

 private:
  struct FreeState {
    void operator()(XXH3_state_s* state) const;
  };

  void EndBlock();

  std::unique_ptr<XXH3_state_s, FreeState> state_;
  int64_t in_block_ = 0;
  std::string digests_;
};

// Blocks of a shard, the last one included; 0 for an empty file.
int64_t BlockCount(const lasp::v1::CheckpointShard& shard);

// Whether `data`, block `index` of the shard, is what was written: DATA_LOSS names file and block.
absl::Status CheckBlock(const lasp::v1::CheckpointShard& shard, int64_t index, const void* data,
                        size_t size);

// Reads the whole file `descriptor`, which `path` names in errors: DATA_LOSS where it is not what
// was written, its size included; UNAVAILABLE where it cannot be read.
absl::Status CheckShardFile(const lasp::v1::CheckpointShard& shard, int descriptor,
                            absl::string_view path);

}  // namespace lasp
