#include "proto/checkpoint/block_digests.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"

namespace lasp {
namespace {

void AppendCanonical(XXH128_hash_t hash, std::string* digests) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  static_assert(sizeof(canonical.digest) == kBlockDigestBytes);
  digests->append(reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest));
}

}  // namespace

std::string BlockDigest(const void* data, size_t size) {
  std::string digest;
  AppendCanonical(XXH3_128bits(data, size), &digest);
  return digest;
}

void BlockDigester::FreeState::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

BlockDigester::BlockDigester() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

BlockDigester::~BlockDigester() = default;

void BlockDigester::Add(const void* data, size_t size) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const size_t part = std::min(size, static_cast<size_t>(kCheckpointBlockBytes - in_block_));
    XXH3_128bits_update(state_.get(), next, part);
    in_block_ += static_cast<int64_t>(part);
    next += part;
    size -= part;
    if (in_block_ == kCheckpointBlockBytes) {
      EndBlock();
    }
  }
}

void BlockDigester::EndBlock() {
  AppendCanonical(XXH3_128bits_digest(state_.get()), &digests_);
  XXH3_128bits_reset(state_.get());
  in_block_ = 0;
}

std::string BlockDigester::Finish() {
  if (in_block_ > 0) {
    EndBlock();
  }
  return std::move(digests_);
}

int64_t BlockCount(const lasp::v1::CheckpointShard& shard) {
  return shard.block_bytes() <= 0
             ? 0
             : (shard.size_bytes() + shard.block_bytes() - 1) / shard.block_bytes();
}

absl::Status CheckBlock(const lasp::v1::CheckpointShard& shard, int64_t index, const void* data,
                        size_t size) {
  const absl::string_view digests = shard.block_digests();
  const auto begin = static_cast<size_t>(index * kBlockDigestBytes);
  if (begin + kBlockDigestBytes > digests.size() ||
      digests.substr(begin, kBlockDigestBytes) != BlockDigest(data, size)) {
    return absl::DataLossError(absl::StrCat(
        shard.file(), " is damaged in block ", index, " (bytes ", index * shard.block_bytes(),
        " to ", index * shard.block_bytes() + static_cast<int64_t>(size), ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckShardFile(const lasp::v1::CheckpointShard& shard, int descriptor,
                            absl::string_view path) {
  struct stat status = {};
  if (fstat(descriptor, &status) != 0) {
    return absl::UnavailableError(
        absl::StrCat(path, ": ", absl::ErrnoToStatus(errno, "").message()));
  }
  if (status.st_size != shard.size_bytes()) {
    return absl::DataLossError(absl::StrCat(path, " has ", status.st_size, " bytes, not the ",
                                            shard.size_bytes(), " that were written"));
  }
  // What was just written may still be in the page cache, and says nothing about the disk there.
  (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  const int64_t blocks = BlockCount(shard);
  std::vector<char> buffer;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t offset = block * shard.block_bytes();
    buffer.resize(static_cast<size_t>(std::min(shard.block_bytes(), shard.size_bytes() - offset)));
    const absl::StatusOr<int64_t> size =
        ReadUpTo(descriptor, offset, static_cast<int64_t>(buffer.size()), buffer.data());
    if (!size.ok()) {
      return absl::UnavailableError(
          absl::StrCat("reading ", path, " at byte ", offset, ": ", size.status().message()));
    }
    LASP_RETURN_IF_ERROR(CheckBlock(shard, block, buffer.data(), static_cast<size_t>(*size)));
  }
  (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

}  // namespace lasp
