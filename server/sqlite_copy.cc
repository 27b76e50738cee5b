#include "server/sqlite_copy.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "server/sqlite_database.h"
#include "server/store_error.h"
#include "server/try_again.h"

namespace lasp::server {
namespace {

// Between two looks at `stop`: four megabytes.
constexpr int kPagesAtOnce = 1'024;

absl::Status CopyPages(const SqliteDatabase& source, const SqliteDatabase& target,
                       const std::string& to, const std::atomic<bool>& stop) {
  sqlite3_backup* const backup = sqlite3_backup_init(target.get(), "main", source.get(), "main");
  if (backup == nullptr) {
    return StoreUnavailable("write", to, sqlite3_errmsg(target.get()));
  }
  int code = SQLITE_OK;
  while (code == SQLITE_OK && !stop.load()) {
    code = sqlite3_backup_step(backup, kPagesAtOnce);
  }
  sqlite3_backup_finish(backup);
  if (code == SQLITE_OK) {
    return ShuttingDown();
  }
  return code == SQLITE_DONE ? absl::OkStatus()
                             : StoreUnavailable("write", to, sqlite3_errstr(code));
}

}  // namespace

absl::Status CopyDatabase(const std::string& from, const std::string& to,
                          const std::atomic<bool>& stop) {
  LASP_ASSIGN_OR_RETURN(SqliteDatabase source,
                        SqliteDatabase::Open(from, "", SqliteDatabase::Mode::kReadOnly));
  LASP_ASSIGN_OR_RETURN(SqliteDatabase target,
                        SqliteDatabase::Open(to, "", SqliteDatabase::Mode::kReadWrite));
  // A transaction holds the moment: without it the copy would begin anew with each commit.
  LASP_RETURN_IF_ERROR(source.Execute("BEGIN; SELECT COUNT(*) FROM sqlite_schema"));
  LASP_RETURN_IF_ERROR(CopyPages(source, target, to, stop));
  // One file: a store's own mode would ask for a log beside it.
  return target.Execute("PRAGMA journal_mode = DELETE");
}

}  // namespace lasp::server
