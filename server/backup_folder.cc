#include "server/backup_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"
#include "server/durable_file.h"
#include "server/file_digest.h"
#include "server/sqlite_copy.h"
#include "server/sqlite_database.h"
#include "server/store_error.h"
#include "server/store_facts.h"

namespace lasp::server {
namespace {

namespace fs = std::filesystem;

constexpr char kCopySuffix[] = ".sqlite";
constexpr char kDigestSuffix[] = ".sqlite.sha256";
constexpr char kPartialSuffix[] = ".partial";
// Left free for what is written meanwhile.
constexpr uintmax_t kSpareBytes = uintmax_t{64} << 20;
// %E4Y: %Y would take the digits of the month too.
constexpr char kTimeFormat[] = "%E4Y%m%dT%H%M%SZ";

// Whose moment the copy holds, for those who restore it.
absl::Status Mark(const std::string& path, absl::Time now) {
  LASP_ASSIGN_OR_RETURN(SqliteDatabase copy,
                        SqliteDatabase::Open(path, "", SqliteDatabase::Mode::kReadWrite));
  return copy.Execute(
      absl::StrCat("INSERT OR REPLACE INTO meta (key, value) VALUES ('backup_unix_micros', ",
                   absl::ToUnixMicros(now), ")"));
}

absl::StatusOr<StoreBackup> ReadBackup(const std::string& digest_path) {
  StoreBackup backup;
  backup.path = std::string(absl::StripSuffix(digest_path, ".sha256"));
  backup.id =
      std::string(absl::StripSuffix(fs::path(digest_path).filename().string(), kDigestSuffix));
  std::string error;
  const size_t dash = backup.id.find('-');
  if (const size_t last = backup.id.rfind('-'); last != dash) {
    backup.note = backup.id.substr(dash + 1, last - dash - 1);
  }
  if (!absl::ParseTime(kTimeFormat, backup.id.substr(0, dash), &backup.create_time, &error)) {
    return absl::InvalidArgumentError(error);
  }
  std::ifstream(digest_path) >> backup.sha256;
  std::error_code code;
  backup.byte_count = static_cast<int64_t>(fs::file_size(backup.path, code));
  if (code) {
    return absl::NotFoundError(code.message());
  }
  return backup;
}

}  // namespace

BackupFolder::BackupFolder(Options options, const Clock* clock)
    : options_(std::move(options)), clock_(clock) {
  const auto backups = List();
  if (!backups.ok()) {
    return;
  }
  const auto newest = std::find_if(backups->begin(), backups->end(),
                                   [](const StoreBackup& backup) { return backup.note.empty(); });
  if (newest != backups->end()) {
    newest_unix_micros_ = absl::ToUnixMicros(newest->create_time);
  }
}

absl::StatusOr<StoreBackup> BackupFolder::Create(absl::string_view note) {
  if (running_.exchange(true)) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           "a backup is being made already: wait until it is done",
                           "BACKUP_RUNNING");
  }
  auto backup = CreateAlone(note);
  if (!backup.ok()) {
    RemoveLeftovers();
  } else if (backup->note.empty()) {
    newest_unix_micros_ = absl::ToUnixMicros(backup->create_time);
  }
  running_ = false;
  return backup;
}

absl::StatusOr<StoreBackup> BackupFolder::CreateAlone(absl::string_view note) {
  if (mkdir(options_.folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return StoreUnavailable("make", options_.folder, errno);
  }
  RemoveLeftovers();
  LASP_RETURN_IF_ERROR(CheckRoom());
  constexpr int kSuffixLength = 4;
  StoreBackup backup;
  backup.create_time = clock_->Now();
  backup.note = std::string(note);
  backup.id =
      absl::StrCat(absl::FormatTime(kTimeFormat, backup.create_time, absl::UTCTimeZone()), "-",
                   note.empty() ? "" : absl::StrCat(note, "-"), NewIdSuffix(kSuffixLength));
  backup.path = absl::StrCat(options_.folder, "/", backup.id, kCopySuffix);
  const std::string partial = absl::StrCat(backup.path, kPartialSuffix);
  LASP_RETURN_IF_ERROR(CreatePrivateFile(partial));
  LASP_RETURN_IF_ERROR(CopyDatabase(options_.store_path, partial, stop_));
  LASP_RETURN_IF_ERROR(Mark(partial, backup.create_time));
  LASP_RETURN_IF_ERROR(ReadStoreFacts(partial).status());
  LASP_ASSIGN_OR_RETURN(backup.sha256, FileDigest(partial));
  LASP_RETURN_IF_ERROR(PutInPlace(partial, backup.path));
  const std::string digest_path = absl::StrCat(backup.path, ".sha256");
  const std::string digest_partial = absl::StrCat(digest_path, kPartialSuffix);
  LASP_RETURN_IF_ERROR(CreatePrivateFile(
      digest_partial, absl::StrCat(backup.sha256, "  ", backup.id, kCopySuffix, "\n")));
  LASP_RETURN_IF_ERROR(PutInPlace(digest_partial, digest_path));
  std::error_code error;
  backup.byte_count = static_cast<int64_t>(fs::file_size(backup.path, error));
  RemoveOldest();
  LASP_LOG(kInfo, "store backed up",
           {{"path", backup.path}, {"bytes", backup.byte_count}, {"sha256", backup.sha256}});
  return backup;
}

absl::StatusOr<std::vector<StoreBackup>> BackupFolder::List() const {
  std::vector<StoreBackup> backups;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options_.folder, error)) {
    const std::string path = entry.path().string();
    if (!absl::EndsWith(path, kDigestSuffix)) {
      continue;
    }
    // Whatever else lies there is none of ours.
    if (auto backup = ReadBackup(path); backup.ok()) {
      backups.push_back(*std::move(backup));
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return StoreUnavailable("read", options_.folder, error.value());
  }
  std::sort(backups.begin(), backups.end(), [](const StoreBackup& a, const StoreBackup& b) {
    return std::tie(a.create_time, a.id) > std::tie(b.create_time, b.id);
  });
  return backups;
}

absl::Status BackupFolder::CheckRoom() const {
  std::error_code error;
  uintmax_t needed = kSpareBytes;
  for (const char* suffix : {"", "-wal"}) {
    const uintmax_t size = fs::file_size(absl::StrCat(options_.store_path, suffix), error);
    needed += error ? 0 : size;
  }
  const fs::space_info space = fs::space(options_.folder, error);
  if (error || space.available >= needed) {
    return absl::OkStatus();
  }
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         absl::StrCat(options_.folder, " has room for ", space.available >> 20,
                                      " MiB, and a backup may need ", needed >> 20,
                                      ": make room, or set --backup_dir to another disk"),
                         "NO_ROOM", {{"path", options_.folder}});
}

void BackupFolder::RemoveLeftovers() const {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(options_.folder, error)) {
    if (absl::StrContains(entry.path().filename().string(), kPartialSuffix)) {
      leftovers.push_back(entry.path());
    }
  }
  for (const fs::path& leftover : leftovers) {
    fs::remove(leftover, error);
  }
}

void BackupFolder::RemoveOldest() const {
  const auto backups = List();
  for (size_t i = static_cast<size_t>(options_.max_backups); backups.ok() && i < backups->size();
       ++i) {
    std::error_code error;
    // The digest first: a copy without it is none.
    fs::remove(absl::StrCat((*backups)[i].path, ".sha256"), error);
    fs::remove((*backups)[i].path, error);
  }
}

}  // namespace lasp::server
