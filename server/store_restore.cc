#include "server/store_restore.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"
#include "server/audit_record.h"
#include "server/durable_file.h"
#include "server/file_digest.h"
#include "server/sqlite_copy.h"
#include "server/sqlite_writer.h"
#include "server/store_error.h"
#include "server/store_facts.h"

namespace lasp::server {
namespace {

namespace fs = std::filesystem;

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

// Where `sha256sum` has left its word beside the file, it must hold.
absl::Status CheckDigest(const std::string& path) {
  std::string expected;
  std::ifstream(absl::StrCat(path, ".sha256")) >> expected;
  if (expected.empty()) {
    return absl::OkStatus();
  }
  LASP_ASSIGN_OR_RETURN(const std::string digest, FileDigest(path));
  return digest == expected ? absl::OkStatus()
                            : ErrorWithReason(absl::StatusCode::kDataLoss,
                                              absl::StrCat(path, " is not what ", path,
                                                           ".sha256 says: its SHA-256 is ", digest,
                                                           "; take another backup"),
                                              "DIGEST_MISMATCH", {{"path", path}});
}

absl::Status StoreExists(const std::string& store, const StoreFacts& backup) {
  std::error_code error;
  fs::file_time_type written = fs::last_write_time(store, error);
  if (const auto log = fs::last_write_time(store + "-wal", error); !error) {
    written = std::max(written, log);
  }
  const absl::Time time = absl::FromChrono(fs::file_time_type::clock::to_sys(written));
  return ErrorWithReason(
      absl::StatusCode::kAlreadyExists,
      absl::StrCat(store, " exists, last written at ", TimeText(time), ", and the backup holds ",
                   backup.backup_time == absl::InfinitePast() ? "an unknown moment"
                                                              : TimeText(backup.backup_time),
                   ": what was decided since is lost; to restore all the same add "
                   "--replace_store, which puts that store aside"),
      "STORE_EXISTS", {{"path", store}});
}

// Makes the copy a store of its own: see the header.
absl::Status MakeAnother(const std::string& path, const RestoreRequest& request,
                         const std::string& put_aside, absl::Time now) {
  {
    LASP_ASSIGN_OR_RETURN(const auto writer, SqliteWriter::Open(path, "", 1));
    LASP_RETURN_IF_ERROR(writer->Begin());
    lasp::v1::AuditRecord record =
        NewAuditRecord({.principal = "operator", .role = "", .peer = ""}, audit::kRestore,
                       fs::path(request.backup).filename().string(), now);
    record.set_detail(put_aside.empty() ? "" : absl::StrCat("in the place of ", put_aside));
    LASP_RETURN_IF_ERROR(writer->Apply(AddAuditRecord{.record = std::move(record)}));
    LASP_RETURN_IF_ERROR(writer->Commit());
  }
  LASP_ASSIGN_OR_RETURN(SqliteDatabase store,
                        SqliteDatabase::Open(path, "", SqliteDatabase::Mode::kReadWrite));
  // Of etags, which are revisions: those of the lost history were of the runs that followed.
  std::random_device random;
  const int skipped_runs = 1 + static_cast<int>(random() % 65'536);
  LASP_RETURN_IF_ERROR(store.Execute(absl::StrCat(
      "BEGIN IMMEDIATE; UPDATE meta SET value = '", NewUuid(),
      "' WHERE key = 'uuid'; DELETE FROM meta WHERE key = 'backup_unix_micros';",
      "INSERT INTO meta (key, value) VALUES ('runs', ", skipped_runs,
      ") ON CONFLICT (key) DO UPDATE SET value = value + excluded.value;",
      "INSERT INTO meta (key, value) VALUES ('generation_floor', MAX(", absl::ToUnixSeconds(now),
      ", (SELECT COALESCE(MAX(generation), 0) FROM jobs))) ON CONFLICT (key) DO UPDATE SET value = "
      "MAX(value + 1, excluded.value);",
      "INSERT OR REPLACE INTO meta (key, value) VALUES ('adopts_checkpoints', 1); COMMIT")));
  // Without a log beside it, it can be renamed.
  return store.Execute("PRAGMA journal_mode = DELETE");
}

// Gives the store a second name, under which it stays, with the log that it may have. `store` is
// there all the time.
absl::Status PutAside(const std::string& store, const std::string& aside) {
  {
    // One file, if it can still be read.
    auto database = SqliteDatabase::Open(store, "", SqliteDatabase::Mode::kReadWrite);
    if (database.ok()) {
      const absl::Status ignored = database->Execute("PRAGMA wal_checkpoint(TRUNCATE)");
      static_cast<void>(ignored);
    }
  }
  std::error_code error;
  fs::create_hard_link(store, aside, error);
  for (const char* suffix : {"-wal", "-shm"}) {
    std::error_code absent;
    if (!error && fs::exists(store + suffix, absent)) {
      fs::rename(store + suffix, aside + suffix, error);
    }
  }
  return error ? StoreUnavailable("put aside", store, error.value()) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<RestoreResult> RestoreStore(const RestoreRequest& request, absl::Time now) {
  LASP_RETURN_IF_ERROR(CheckDigest(request.backup));
  LASP_ASSIGN_OR_RETURN(const StoreFacts facts, ReadStoreFacts(request.backup));
  const std::string store = absl::StrCat(request.data_dir, "/store.sqlite");
  RestoreResult result{.backup_time = facts.backup_time, .jobs = facts.jobs, .put_aside = ""};
  std::error_code error;
  if (fs::exists(store, error)) {
    if (!request.replace) {
      return StoreExists(store, facts);
    }
    result.put_aside = absl::StrCat(store, ".replaced-",
                                    absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone()),
                                    "-", NewIdSuffix(4));
  }
  const std::string copy = absl::StrCat(store, ".restoring");
  LASP_RETURN_IF_ERROR(CreatePrivateFile(copy));
  const std::atomic<bool> never{false};
  LASP_RETURN_IF_ERROR(CopyDatabase(request.backup, copy, never));
  LASP_RETURN_IF_ERROR(MakeAnother(copy, request, result.put_aside, now));
  if (!result.put_aside.empty()) {
    LASP_RETURN_IF_ERROR(PutAside(store, result.put_aside));
  }
  LASP_RETURN_IF_ERROR(PutInPlace(copy, store));
  return result;
}

}  // namespace lasp::server
