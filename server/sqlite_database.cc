#include "server/sqlite_database.h"

#include <sqlite3.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

// What a caller can do about it: nothing but wait (UNAVAILABLE), or repair (DATA_LOSS). INTERNAL is
// a fault of ours.
absl::Status SqliteError(sqlite3* database, const std::string& path, int code,
                         absl::string_view doing) {
  const std::string cause =
      absl::StrCat(database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code),
                   " (SQLite error ", code, ")");
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return StoreDamaged(path, cause);
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_ERROR:
      return ErrorWithReason(
          absl::StatusCode::kInternal,
          absl::StrCat("the coordinator's store: cannot ", doing, " ", path, ": ", cause,
                       "; this is a fault of lasp-server: please report it"),
          "STORE_FAULT", {{"path", path}});
    default:
      return StoreUnavailable(doing, path, cause);
  }
}

absl::Status SqliteError(sqlite3* database, int code, absl::string_view sql) {
  const char* const path = sqlite3_db_filename(database, "main");
  return SqliteError(database, path == nullptr ? "" : path, code,
                     absl::StrCat("run '", sql.substr(0, sql.find('\n')), "' on"));
}

}  // namespace

SqliteDatabase::SqliteDatabase(SqliteDatabase&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)) {}

SqliteDatabase& SqliteDatabase::operator=(SqliteDatabase&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

SqliteDatabase::~SqliteDatabase() { sqlite3_close_v2(handle_); }

absl::StatusOr<SqliteDatabase> SqliteDatabase::Open(const std::string& path, const std::string& vfs,
                                                    Mode mode) {
  const int flags = (mode == Mode::kReadWrite ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                                              : SQLITE_OPEN_READONLY) |
                    SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  SqliteDatabase database;
  const int code =
      sqlite3_open_v2(path.c_str(), &database.handle_, flags, vfs.empty() ? nullptr : vfs.c_str());
  if (code != SQLITE_OK) {
    return SqliteError(database.handle_, path, code, "open");
  }
  sqlite3_busy_timeout(database.handle_, 5'000);
  return database;
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteError(handle_, code, sql);
}

absl::StatusOr<int64_t> SqliteDatabase::QueryInteger(const std::string& sql) {
  LASP_ASSIGN_OR_RETURN(SqliteStatement statement, SqliteStatement::Prepare(*this, sql));
  LASP_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Integer() : 0;
}

bool SqliteDatabase::in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }

int64_t SqliteDatabase::total_changes() const { return sqlite3_total_changes64(handle_); }

SqliteStatement::SqliteStatement(SqliteStatement&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      next_parameter_(other.next_parameter_),
      next_column_(other.next_column_) {}

SqliteStatement& SqliteStatement::operator=(SqliteStatement&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(next_parameter_, other.next_parameter_);
  std::swap(next_column_, other.next_column_);
  return *this;
}

SqliteStatement::~SqliteStatement() { sqlite3_finalize(handle_); }

absl::StatusOr<SqliteStatement> SqliteStatement::Prepare(const SqliteDatabase& database,
                                                         const std::string& sql) {
  SqliteStatement statement;
  const int code = sqlite3_prepare_v3(database.get(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT,
                                      &statement.handle_, nullptr);
  if (code != SQLITE_OK) {
    return SqliteError(database.get(), code, sql);
  }
  return statement;
}

SqliteStatement& SqliteStatement::Bind(int64_t value) {
  sqlite3_bind_int64(handle_, next_parameter_++, value);
  return *this;
}

SqliteStatement& SqliteStatement::Bind(const std::string& text) {
  sqlite3_bind_text64(handle_, next_parameter_++, text.data(), text.size(), SQLITE_STATIC,
                      SQLITE_UTF8);
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(absl::string_view bytes) {
  sqlite3_bind_blob64(handle_, next_parameter_++, bytes.data(), bytes.size(), SQLITE_STATIC);
  return *this;
}

absl::Status SqliteStatement::Run() {
  LASP_ASSIGN_OR_RETURN(const bool row, Step());
  if (row) {
    Reset();
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SqliteStatement::Step() {
  next_column_ = 0;
  const int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) {
    return true;
  }
  absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error(code);
  Reset();
  if (!status.ok()) {
    return status;
  }
  return false;
}

void SqliteStatement::Reset() {
  sqlite3_reset(handle_);
  next_parameter_ = 1;
  next_column_ = 0;
}

int64_t SqliteStatement::Integer() { return sqlite3_column_int64(handle_, next_column_++); }

std::string SqliteStatement::Text() { return std::string(Blob()); }

absl::string_view SqliteStatement::Blob() {
  const void* bytes = sqlite3_column_blob(handle_, next_column_);
  const int size = sqlite3_column_bytes(handle_, next_column_++);
  return size == 0 ? absl::string_view()
                   : absl::string_view(static_cast<const char*>(bytes), static_cast<size_t>(size));
}

absl::Status SqliteStatement::Error(int code) const {
  return SqliteError(sqlite3_db_handle(handle_), code, sqlite3_sql(handle_));
}

}  // namespace lasp::server
