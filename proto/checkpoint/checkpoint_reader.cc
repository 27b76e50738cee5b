#include "proto/checkpoint/checkpoint_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/checkpoint_folder.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"
#include "proto/spec/open_beneath.h"

namespace lasp {
namespace {

constexpr int64_t kBlocksAhead = 4;

absl::Status Corrupt(const std::string& folder, const std::string& file, absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kDataLoss,
                         absl::StrCat("checkpoint ", folder, ": ", what), kCheckpointCorrupt,
                         {{"folder", folder}, {"file", file}});
}

absl::Status Unreadable(const std::string& folder, absl::string_view what) {
  return ErrorWithReason(
      absl::StatusCode::kUnavailable,
      absl::StrCat("checkpoint ", folder, ": ", what,
                   ": check that this host sees the file system of --checkpoint_root"),
      kCheckpointUnreadable, {{"folder", folder}});
}

// What a failed open says of a checkpoint whose parent folder could be opened.
absl::Status NotOpened(const std::string& folder, const std::string& file, int error) {
  const std::string what =
      absl::StrCat(file.empty() ? "its folder" : file,
                   " cannot be opened: ", absl::ErrnoToStatus(error, "").message());
  return error == ENOENT || error == ENOTDIR || error == EXDEV || error == ELOOP
             ? Corrupt(folder, file, what)
             : Unreadable(folder, what);
}

absl::StatusOr<UniqueFd> OpenFile(int folder_fd, const std::string& folder, const std::string& name,
                                  int64_t* size) {
  UniqueFd file(OpenBeneath(folder_fd, name));
  if (!file.valid()) {
    return NotOpened(folder, name, errno);
  }
  struct stat status = {};
  if (fstat(file.get(), &status) != 0) {
    return NotOpened(folder, name, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return Corrupt(folder, name, absl::StrCat(name, " is no file"));
  }
  *size = status.st_size;
  return file;
}

absl::StatusOr<std::string> ReadManifest(int folder_fd, const std::string& folder) {
  int64_t size = 0;
  LASP_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(folder_fd, folder, kManifestFile, &size));
  if (size > kMaxManifestBytes) {
    return Corrupt(folder, kManifestFile, absl::StrCat("a manifest of ", size, " bytes"));
  }
  std::string text(static_cast<size_t>(size), '\0');
  const absl::StatusOr<int64_t> count = ReadUpTo(file.get(), 0, size, text.data());
  if (!count.ok()) {
    return Unreadable(folder, absl::StrCat("reading its manifest: ", count.status().message()));
  }
  text.resize(static_cast<size_t>(*count));
  return text;
}

}  // namespace

absl::StatusOr<CheckpointReader> CheckpointReader::Open(
    const std::string& root, const lasp::v1::CheckpointReference& reference) {
  const std::string& folder = reference.folder();
  LASP_RETURN_IF_ERROR(CheckFolderName(folder));
  // Where even the job's folder is not there, the file system is not: that says nothing of the
  // checkpoint.
  const size_t slash = folder.rfind('/');
  if (slash != std::string::npos) {
    const auto parent = OpenFolderBeneath(root, folder.substr(0, slash));
    if (!parent.ok()) {
      return Unreadable(folder, parent.status().message());
    }
  }
  const UniqueFd root_fd(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.valid()) {
    return Unreadable(folder, absl::StrCat(root, ": ", absl::ErrnoToStatus(errno, "").message()));
  }
  UniqueFd folder_fd(OpenBeneath(root_fd.get(), folder));
  if (!folder_fd.valid()) {
    return NotOpened(folder, "", errno);
  }
  LASP_ASSIGN_OR_RETURN(const std::string text, ReadManifest(folder_fd.get(), folder));
  if (ManifestDigest(text) != reference.manifest_digest()) {
    return Corrupt(folder, kManifestFile, "its manifest is not the one that was committed");
  }
  absl::StatusOr<lasp::v1::CheckpointManifest> manifest = ParseManifest(text);
  if (!manifest.ok()) {
    return Corrupt(folder, kManifestFile, manifest.status().message());
  }
  return CheckpointReader(folder, std::move(folder_fd), *std::move(manifest));
}

CheckpointReader::CheckpointReader(std::string folder, UniqueFd folder_fd,
                                   lasp::v1::CheckpointManifest manifest)
    : folder_(std::move(folder)), folder_fd_(std::move(folder_fd)), manifest_(std::move(manifest)) {
  for (int index = 0; index < manifest_.shards_size(); ++index) {
    for (const lasp::v1::TensorExtent& extent : shard(index).extents()) {
      places_[extent.tensor()].push_back({.shard = index,
                                          .begin = extent.begin(),
                                          .count = extent.count(),
                                          .offset_bytes = extent.offset_bytes()});
    }
  }
  for (auto& [tensor, places] : places_) {
    std::sort(places.begin(), places.end(),
              [](const Place& a, const Place& b) { return a.begin < b.begin; });
  }
}

absl::Status CheckpointReader::Read(const std::string& tensor, int64_t begin, int64_t count,
                                    void* to) {
  // The manifest has been checked: they cover the tensor without gaps.
  for (const Place& place : places_[tensor]) {
    const int64_t from = std::max(begin, place.begin);
    const int64_t end = std::min(begin + count, place.begin + place.count);
    if (from < end) {
      constexpr int64_t kBytes = sizeof(float);
      LASP_RETURN_IF_ERROR(
          ReadBytes(place.shard, place.offset_bytes + (from - place.begin) * kBytes,
                    (end - from) * kBytes, static_cast<char*>(to) + (from - begin) * kBytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::ReadBytes(int shard_index, int64_t offset, int64_t size, char* to) {
  const int64_t block_bytes = shard(shard_index).block_bytes();
  while (size > 0) {
    const int64_t block = offset / block_bytes;
    LASP_RETURN_IF_ERROR(LoadBlock(shard_index, block));
    const int64_t within = offset - block * block_bytes;
    const int64_t part = std::min(size, static_cast<int64_t>(block_data_.size()) - within);
    std::memcpy(to, block_data_.data() + within, static_cast<size_t>(part));
    to += part;
    offset += part;
    size -= part;
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::OpenShard(int shard_index) {
  if (open_shard_ == shard_index) {
    return absl::OkStatus();
  }
  open_shard_ = -1;
  block_ = -1;
  const lasp::v1::CheckpointShard& wanted = shard(shard_index);
  int64_t size = 0;
  LASP_ASSIGN_OR_RETURN(open_file_, OpenFile(folder_fd_.get(), folder_, wanted.file(), &size));
  if (size != wanted.size_bytes()) {
    return Corrupt(folder_, wanted.file(),
                   absl::StrCat(wanted.file(), " has ", size, " bytes, not the ",
                                wanted.size_bytes(), " that were written"));
  }
  open_shard_ = shard_index;
  return absl::OkStatus();
}

absl::Status CheckpointReader::LoadBlock(int shard_index, int64_t block) {
  LASP_RETURN_IF_ERROR(OpenShard(shard_index));
  if (block_ == block) {
    return absl::OkStatus();
  }
  block_ = -1;
  const lasp::v1::CheckpointShard& from = shard(shard_index);
  const int64_t offset = block * from.block_bytes();
  // The disk goes on while this block is looked at.
  (void)posix_fadvise(open_file_.get(), offset + from.block_bytes(),
                      kBlocksAhead * from.block_bytes(), POSIX_FADV_WILLNEED);
  block_data_.resize(static_cast<size_t>(std::min(from.block_bytes(), from.size_bytes() - offset)));
  const absl::StatusOr<int64_t> count = ReadUpTo(
      open_file_.get(), offset, static_cast<int64_t>(block_data_.size()), block_data_.data());
  if (!count.ok()) {
    return Unreadable(folder_, absl::StrCat("reading ", from.file(), " at byte ", offset, ": ",
                                            count.status().message()));
  }
  const absl::Status checked =
      CheckBlock(from, block, block_data_.data(), static_cast<size_t>(*count));
  if (!checked.ok()) {
    return Corrupt(folder_, from.file(), checked.message());
  }
  block_ = block;
  return absl::OkStatus();
}

}  // namespace lasp
