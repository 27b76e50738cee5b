#include "worker/agent/left_states.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/checkpoint/left_state_folder.h"
#include "proto/rpc/log.h"

namespace lasp::worker {

absl::Status PrepareMemoryRoot(const std::string& path) {
  if (mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", path));
  }
  struct stat status = {};
  if (lstat(path.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("looking at ", path));
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
      (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not a folder of this user alone"));
  }
  return absl::OkStatus();
}

std::string DefaultMemoryRoot(const std::string& work_folder) {
  std::error_code error;
  const std::string path = std::filesystem::weakly_canonical(work_folder, error).string();
  return absl::StrCat("/dev/shm/lasp",
                      absl::StrReplaceAll(error ? work_folder : path, {{"/", "-"}}));
}

LeftStates::LeftStates(std::string root) : root_(std::move(root)) {
  if (root_.empty()) {
    return;
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root_, error)) {
    Remove(entry.path().filename().string());
  }
}

LeftStates::~LeftStates() {
  if (!root_.empty()) {
    Remove("");
  }
}

void LeftStates::Expect(const lasp::v1::Fence& fence, absl::Duration now) {
  if (!root_.empty()) {
    expiries_[LeftStateFolder(fence.uid(), fence.generation())] = now + kKept;
  }
}

void LeftStates::RemoveOlder(const lasp::v1::Fence& fence) {
  for (auto entry = expiries_.begin(); entry != expiries_.end();) {
    if (IsOlderLeftState(entry->first, fence.uid(), fence.generation())) {
      Remove(entry->first);
      entry = expiries_.erase(entry);
    } else {
      ++entry;
    }
  }
}

void LeftStates::Expire(absl::Duration now) {
  for (auto entry = expiries_.begin(); entry != expiries_.end();) {
    if (entry->second <= now) {
      Remove(entry->first);
      entry = expiries_.erase(entry);
    } else {
      ++entry;
    }
  }
}

absl::Duration LeftStates::next_expiry() const {
  absl::Duration next = absl::InfiniteDuration();
  for (const auto& [folder, expiry] : expiries_) {
    next = std::min(next, expiry);
  }
  return next;
}

void LeftStates::Remove(const std::string& folder) const {
  std::error_code error;
  std::filesystem::remove_all(std::filesystem::path(root_) / folder, error);
  if (error) {
    LASP_LOG(kWarning, "state that was left cannot be removed",
             {{"folder", folder}, {"error", error.message()}});
  }
}

}  // namespace lasp::worker
