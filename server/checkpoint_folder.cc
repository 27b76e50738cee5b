#include "server/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/file_reader.h"
#include "proto/spec/open_beneath.h"
#include "proto/spec/unique_fd.h"
#include "server/durable_file.h"

namespace lasp::server {
namespace {

absl::Status Errno(absl::string_view what, absl::string_view path) {
  return absl::UnavailableError(
      absl::StrCat(what, " ", path, ": ", absl::ErrnoToStatus(errno, "").message()));
}

// A file of the checkpoint, beneath its root whatever links are there. A file that is missing is
// lost; one that cannot be opened may be another time.
absl::StatusOr<UniqueFd> OpenFile(const std::string& root, const std::string& path) {
  const UniqueFd folder(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return Errno("opening", root);
  }
  UniqueFd file(OpenBeneath(folder.get(), path));
  if (file.valid()) {
    return file;
  }
  return errno == ENOENT ? absl::DataLossError(absl::StrCat(path, " is not there"))
                         : Errno("opening", path);
}

absl::StatusOr<int64_t> SizeOf(int descriptor, absl::string_view path) {
  struct stat status = {};
  if (fstat(descriptor, &status) != 0) {
    return Errno("looking at", path);
  }
  return static_cast<int64_t>(status.st_size);
}

absl::StatusOr<std::string> ReadSmallFile(int descriptor, absl::string_view path) {
  LASP_ASSIGN_OR_RETURN(const int64_t size, SizeOf(descriptor, path));
  if (size > kMaxManifestBytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", size, " bytes"));
  }
  std::string text(static_cast<size_t>(size), '\0');
  const absl::StatusOr<int64_t> done = ReadUpTo(descriptor, 0, size, text.data());
  if (!done.ok()) {
    return absl::UnavailableError(absl::StrCat("reading ", path, ": ", done.status().message()));
  }
  text.resize(static_cast<size_t>(*done));
  return text;
}

// Of the checkpoint whose folder has this name; 0 where it is no such name.
int64_t GenerationOf(absl::string_view name) {
  constexpr absl::string_view kGeneration = ".gen-";
  const size_t end = name.find(kGeneration);
  absl::string_view step = name.substr(0, end);
  int64_t step_number = 0;
  int64_t generation = 0;
  return end != absl::string_view::npos && absl::ConsumePrefix(&step, "step-") &&
                 absl::SimpleAtoi(step, &step_number) &&
                 absl::SimpleAtoi(name.substr(end + kGeneration.size()), &generation) &&
                 CheckpointFolderName(step_number, generation) == name
             ? generation
             : 0;
}

absl::Status SyncFolder(const std::string& path) {
  const UniqueFd folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || fsync(folder.get()) != 0) {
    return Errno("syncing", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckpointFolder::Check() const {
  std::error_code error;
  if (!std::filesystem::is_directory(root_, error) ||
      access(root_.c_str(), R_OK | W_OK | X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("--checkpoint_root ", root_,
                     " is not a folder that this program may write: make it, as its user"));
  }
  return absl::OkStatus();
}

absl::Status CheckpointFolder::CheckSizes(const std::string& folder,
                                          const lasp::v1::CheckpointManifest& manifest) const {
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    const std::string path = absl::StrCat(folder, "/", shard.file());
    LASP_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(root_, path));
    LASP_ASSIGN_OR_RETURN(const int64_t size, SizeOf(file.get(), path));
    if (size != shard.size_bytes()) {
      return absl::DataLossError(absl::StrCat(path, " has ", size, " bytes, not the ",
                                              shard.size_bytes(), " that its rank wrote"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckpointFolder::Commit(
    const std::string& folder, const lasp::v1::CheckpointManifest& manifest) const {
  LASP_RETURN_IF_ERROR(CheckManifest(manifest));
  LASP_RETURN_IF_ERROR(CheckSizes(folder, manifest));
  LASP_ASSIGN_OR_RETURN(const std::string text, ManifestText(manifest));
  if (static_cast<int64_t>(text.size()) > max_manifest_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the manifest of ", folder, " has ", text.size(), " bytes, and one of more than ",
        max_manifest_bytes_, " is not read again; its ", manifest.shards_size(),
        " shards have too many tensors and blocks to list: train with fewer ranks"));
  }
  std::string digest = ManifestDigest(text);
  const std::string path = absl::StrCat(root_, "/", folder, "/", kManifestFile);
  const std::string digest_path = absl::StrCat(root_, "/", folder, "/", kManifestDigestFile);
  LASP_RETURN_IF_ERROR(
      CreatePrivateFile(digest_path + ".tmp", absl::StrCat(digest, "  ", kManifestFile, "\n")));
  LASP_RETURN_IF_ERROR(PutInPlace(digest_path + ".tmp", digest_path));
  // From this rename on it is a checkpoint.
  LASP_RETURN_IF_ERROR(CreatePrivateFile(path + ".tmp", text));
  LASP_RETURN_IF_ERROR(PutInPlace(path + ".tmp", path));
  return digest;
}

absl::StatusOr<std::string> CheckpointFolder::ReadManifest(const std::string& folder) const {
  const std::string path = absl::StrCat(folder, "/", kManifestFile);
  LASP_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(root_, path));
  return ReadSmallFile(file.get(), path);
}

absl::StatusOr<FoundCheckpoint> CheckpointFolder::ReadCommitted(const std::string& folder) const {
  LASP_ASSIGN_OR_RETURN(const std::string text, ReadManifest(folder));
  const std::string path = absl::StrCat(folder, "/", kManifestDigestFile);
  LASP_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(root_, path));
  LASP_ASSIGN_OR_RETURN(const std::string said, ReadSmallFile(file.get(), path));
  FoundCheckpoint found{.folder = folder, .manifest = {}, .manifest_digest = ManifestDigest(text)};
  if (!absl::StartsWith(said, found.manifest_digest)) {
    return absl::DataLossError(absl::StrCat(folder, ": the manifest is not what ", path, " says"));
  }
  LASP_ASSIGN_OR_RETURN(found.manifest, ParseManifest(text));
  LASP_RETURN_IF_ERROR(CheckSizes(folder, found.manifest));
  return found;
}

std::vector<FoundCheckpoint> CheckpointFolder::FindCommitted(const std::string& folder) const {
  namespace fs = std::filesystem;
  std::vector<FoundCheckpoint> all;
  std::error_code error;
  for (fs::directory_iterator entry(absl::StrCat(root_, "/", folder), error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string path = absl::StrCat(folder, "/", entry->path().filename().string());
    absl::StatusOr<FoundCheckpoint> found = ReadCommitted(path);
    if (found.ok()) {
      all.push_back(*std::move(found));
    } else {
      LASP_LOG(kWarning, "not a whole checkpoint",
               {{"folder", path}, {"status", found.status().ToString()}});
    }
  }
  return all;
}

absl::Status CheckpointFolder::Verify(const std::string& folder, const std::string& manifest_digest,
                                      const std::function<bool()>& stop) const {
  LASP_ASSIGN_OR_RETURN(const std::string text, ReadManifest(folder));
  if (ManifestDigest(text) != manifest_digest) {
    return absl::DataLossError(
        absl::StrCat(folder, "/", kManifestFile, " is not the manifest that was committed"));
  }
  LASP_ASSIGN_OR_RETURN(const lasp::v1::CheckpointManifest manifest, ParseManifest(text));
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    if (stop()) {
      return absl::CancelledError("the coordinator ends");
    }
    const std::string shard_path = absl::StrCat(folder, "/", shard.file());
    LASP_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(root_, shard_path));
    LASP_RETURN_IF_ERROR(CheckShardFile(shard, file.get(), shard_path));
  }
  return absl::OkStatus();
}

absl::Status CheckpointFolder::CheckRoot() const {
  std::error_code error;
  return std::filesystem::is_directory(root_, error)
             ? absl::OkStatus()
             : absl::UnavailableError(absl::StrCat("--checkpoint_root ", root_, " is not there"));
}

absl::Status CheckpointFolder::RemoveUnfinished(const std::string& folder, int64_t generation,
                                                const std::set<std::string>& known) const {
  namespace fs = std::filesystem;
  LASP_RETURN_IF_ERROR(CheckRoot());
  std::vector<std::string> unfinished;
  std::error_code error;
  for (fs::directory_iterator entry(absl::StrCat(root_, "/", folder), error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const int64_t begun_by = GenerationOf(name);
    if (begun_by < 1 || begun_by > generation || known.contains(name)) {
      continue;
    }
    // Where it cannot be said whether there is one, there may be.
    std::error_code unknown;
    if (fs::symlink_status(entry->path() / kManifestFile, unknown).type() ==
        fs::file_type::not_found) {
      unfinished.push_back(absl::StrCat(folder, "/", name));
    }
  }
  // A job need not have written anything.
  if (error && error != std::errc::no_such_file_or_directory) {
    return absl::UnavailableError(absl::StrCat("listing ", folder, ": ", error.message()));
  }
  for (const std::string& path : unfinished) {
    LASP_LOG(kInfo, "removes a checkpoint that nobody has told of", {{"folder", path}});
    LASP_RETURN_IF_ERROR(Remove(path));
  }
  return absl::OkStatus();
}

absl::Status CheckpointFolder::Remove(const std::string& folder) const {
  LASP_RETURN_IF_ERROR(CheckRoot());
  const std::string path = absl::StrCat(root_, "/", folder);
  const std::string manifest = absl::StrCat(path, "/", kManifestFile);
  if (unlink(manifest.c_str()) == 0) {
    LASP_RETURN_IF_ERROR(SyncFolder(path));
  } else if (errno != ENOENT) {
    return Errno("removing", manifest);
  }
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("removing ", path, ": ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
