#include "worker/checkpoint/shard_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/bf16_rounding.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

absl::Status WriteAll(int descriptor, absl::string_view data, absl::string_view path) {
  while (!data.empty()) {
    const ssize_t count = write(descriptor, data.data(), data.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("writing ", path));
    }
    data.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

// `data` as fp32.
std::vector<float> Widened(absl::string_view data) {
  std::vector<float> wide;
  wide.reserve(data.size() / sizeof(uint16_t));
  for (size_t at = 0; at < data.size(); at += sizeof(uint16_t)) {
    uint16_t bits = 0;
    std::memcpy(&bits, data.data() + at, sizeof bits);
    wide.push_back(kernels::FromBf16Bits(bits));
  }
  return wide;
}

// Each part is digested while it is in the processor's caches, and its way to the disk begins soon
// after: what is left for the end would be written at once, and hold up whoever else writes. It
// runs ahead of the disk by kAhead at most, so that one that does not answer is noticed.
absl::Status WritePieces(int descriptor, const std::vector<ShardPiece>& pieces,
                         absl::string_view path, const std::function<bool()>& goes_on,
                         BlockDigester* digester) {
  constexpr size_t kPart = 1 << 20;
  constexpr off64_t kFlushed = 32 << 20;
  constexpr off64_t kAhead = 128 << 20;
  off64_t written = 0;
  off64_t flushed = 0;
  for (const ShardPiece& piece : pieces) {
    absl::string_view rest = piece.data;
    while (!rest.empty()) {
      if (!goes_on()) {
        return absl::CancelledError(absl::StrCat("no longer writing ", path));
      }
      absl::string_view part = rest.substr(0, kPart);
      rest.remove_prefix(part.size());
      std::vector<float> wide;
      if (piece.widens) {
        wide = Widened(part);
        part = {reinterpret_cast<const char*>(wide.data()), wide.size() * sizeof(float)};
      }
      digester->Add(part.data(), part.size());
      LASP_RETURN_IF_ERROR(WriteAll(descriptor, part, path));
      written += static_cast<off64_t>(part.size());
      if (written - flushed >= kFlushed) {
        // Where it is not supported nothing is lost; failures are fdatasync's to tell.
        (void)sync_file_range(descriptor, flushed, written - flushed, SYNC_FILE_RANGE_WRITE);
        flushed = written;
        if (written > kAhead) {
          (void)sync_file_range(descriptor, 0, written - kAhead, SYNC_FILE_RANGE_WAIT_BEFORE);
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status WriteAndPublish(const UniqueFd& folder, const std::string& name,
                             const std::string& temporary, absl::string_view path,
                             const std::vector<ShardPiece>& pieces,
                             const std::function<bool()>& goes_on, BlockDigester* digester) {
  const UniqueFd file(openat(folder.get(), temporary.c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                             S_IRUSR | S_IWUSR));
  if (!file.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  }
  LASP_RETURN_IF_ERROR(WritePieces(file.get(), pieces, path, goes_on, digester));
  if (fdatasync(file.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing ", path));
  }
  if (renameat(folder.get(), temporary.c_str(), folder.get(), name.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("naming ", path));
  }
  if (fsync(folder.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing the folder of ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<lasp::v1::CheckpointShard> WriteShardFile(const UniqueFd& folder,
                                                         const std::string& name,
                                                         absl::string_view path,
                                                         const std::vector<ShardPiece>& pieces,
                                                         const std::function<bool()>& goes_on) {
  const std::string temporary = absl::StrCat(name, ".tmp");
  BlockDigester digester;
  absl::Status written = WriteAndPublish(folder, name, temporary, path, pieces, goes_on, &digester);
  if (!written.ok()) {
    (void)unlinkat(folder.get(), temporary.c_str(), 0);
    (void)unlinkat(folder.get(), name.c_str(), 0);
    return written;
  }
  lasp::v1::CheckpointShard shard;
  shard.set_file(name);
  int64_t size = 0;
  for (const ShardPiece& piece : pieces) {
    size += static_cast<int64_t>(piece.data.size()) * (piece.widens ? 2 : 1);
  }
  shard.set_size_bytes(size);
  shard.set_block_bytes(kCheckpointBlockBytes);
  shard.set_block_digests(digester.Finish());
  return shard;
}

}  // namespace lasp::worker
