#include "worker/agent/log_folder.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

constexpr char kFenceFile[] = "/fence";
constexpr char kShippedFile[] = "/shipped";

// The uid comes over the network and must stay one name in this folder.
std::string FolderName(const lasp::v1::Fence& fence) {
  std::string name;
  for (const char c : fence.uid()) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  }
  return absl::StrCat("job-", name, ".gen-", fence.generation(), ".rank-", fence.rank());
}

// The log of a rank that does not run any more.
struct EndedLog {
  std::filesystem::path folder;
  std::filesystem::file_time_type newest;
  int64_t bytes = 0;
  bool shipped = false;
};

std::optional<EndedLog> LookAt(const std::filesystem::path& folder) {
  std::error_code error;
  // The folder's own time changes as files come and go, the newest file's with every line.
  EndedLog log{.folder = folder, .newest = std::filesystem::last_write_time(folder, error)};
  for (const auto& file : std::filesystem::directory_iterator(folder, error)) {
    log.newest = std::max(log.newest, file.last_write_time(error));
    log.bytes += static_cast<int64_t>(file.file_size(error));
  }
  log.shipped = std::filesystem::exists(folder.string() + kShippedFile, error);
  return error ? std::nullopt : std::make_optional(std::move(log));
}

}  // namespace

absl::StatusOr<std::shared_ptr<RankLog>> LogFolder::Create(const lasp::v1::Fence& fence) {
  const std::string folder = absl::StrCat(path_, "/", FolderName(fence));
  LASP_ASSIGN_OR_RETURN(auto log, RankLog::Open(folder, limits_));
  std::ofstream file(folder + kFenceFile, std::ios::binary);
  file << fence.SerializeAsString();
  file.close();
  if (!file) {
    return absl::UnavailableError(absl::StrCat("cannot write ", folder, kFenceFile));
  }
  MutexLock lock(&mutex_);
  created_.push_back(log);
  return log;
}

std::vector<FencedLog> LogFolder::Unshipped() const {
  std::vector<FencedLog> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
    const std::string folder = entry.path().string();
    std::ifstream file(folder + kFenceFile, std::ios::binary);
    FencedLog fenced;
    if (std::filesystem::exists(folder + kShippedFile, error) || !file ||
        !fenced.fence.ParseFromIstream(&file)) {
      continue;
    }
    absl::StatusOr<std::shared_ptr<RankLog>> log = RankLog::Open(folder, limits_);
    if (!log.ok()) {
      LASP_LOG(kWarning, "a rank's log cannot be read", {{"error", log.status().message()}});
      continue;
    }
    fenced.log = *std::move(log);
    fenced.log->Close();
    found.push_back(std::move(fenced));
  }
  return found;
}

void LogFolder::MarkShipped(const RankLog& log) { std::ofstream(log.folder() + kShippedFile); }

bool LogFolder::IsOpen(const std::string& folder) {
  std::erase_if(created_, [](const std::weak_ptr<RankLog>& entry) {
    const std::shared_ptr<RankLog> log = entry.lock();
    return log == nullptr || log->closed();
  });
  return std::any_of(created_.begin(), created_.end(), [&folder](const auto& entry) {
    const std::shared_ptr<RankLog> log = entry.lock();
    return log != nullptr && log->folder() == folder;
  });
}

void LogFolder::RemoveOld(absl::Duration age, int64_t max_bytes) {
  const auto oldest =
      std::filesystem::file_time_type::clock::now() - absl::ToChronoNanoseconds(age);
  std::vector<EndedLog> logs;
  std::error_code error;
  MutexLock lock(&mutex_);
  for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
    if (!IsOpen(entry.path().string())) {
      if (std::optional<EndedLog> log = LookAt(entry.path())) {
        logs.push_back(*std::move(log));
      }
    }
  }
  std::sort(logs.begin(), logs.end(), [](const EndedLog& a, const EndedLog& b) {
    return a.shipped == b.shipped ? a.newest > b.newest : b.shipped;
  });
  int64_t kept = 0;
  for (const EndedLog& log : logs) {
    kept += log.bytes;
    if (log.newest < oldest || kept > max_bytes) {
      std::filesystem::remove_all(log.folder, error);
    }
  }
}

}  // namespace lasp::worker
