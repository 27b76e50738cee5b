// A little RAII over SQLite's C interface: a connection, a prepared statement.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace lasp::server {

// One connection. Used by one thread at a time.
class SqliteDatabase {
 public:
  enum class Mode { kReadWrite, kReadOnly };

  SqliteDatabase() = default;
  SqliteDatabase(SqliteDatabase&& other) noexcept;
  SqliteDatabase& operator=(SqliteDatabase&& other) noexcept;
  ~SqliteDatabase();

  // `vfs` empty for SQLite's own.
  static absl::StatusOr<SqliteDatabase> Open(const std::string& path, const std::string& vfs,
                                             Mode mode);

  // One or more statements without results.
  absl::Status Execute(const std::string& sql);
  // Of a query whose first row has one integer; 0 where there is no row.
  absl::StatusOr<int64_t> QueryInteger(const std::string& sql);
  // Whether a transaction is open (SQLite ends it by itself after some errors).
  bool in_transaction() const;
  // Rows changed since the connection was opened.
  int64_t total_changes() const;

  sqlite3* get() const { return handle_; }

 private:
  sqlite3* handle_ = nullptr;
};

// A prepared statement, kept for many runs. Parameters and columns are counted in order of use:
//
//   insert.Bind(id).Bind(name);
//   LASP_RETURN_IF_ERROR(insert.Run());
//
// Bound text and blobs must live until the run ends. Used by one thread at a time.
class SqliteStatement {
 public:
  SqliteStatement() = default;
  SqliteStatement(SqliteStatement&& other) noexcept;
  SqliteStatement& operator=(SqliteStatement&& other) noexcept;
  ~SqliteStatement();

  static absl::StatusOr<SqliteStatement> Prepare(const SqliteDatabase& database,
                                                 const std::string& sql);

  SqliteStatement& Bind(int64_t value);
  SqliteStatement& Bind(const std::string& text);
  SqliteStatement& BindBlob(absl::string_view bytes);

  // Runs a statement without results and makes it ready for the next run.
  absl::Status Run();
  // The next row; false at the end, where it is made ready for the next run.
  absl::StatusOr<bool> Step();
  // Ends a run before its last row.
  void Reset();

  // The row's columns from left to right.
  int64_t Integer();
  std::string Text();
  // Valid until the next Step.
  absl::string_view Blob();

 private:
  absl::Status Error(int code) const;

  sqlite3_stmt* handle_ = nullptr;
  int next_parameter_ = 1;
  int next_column_ = 0;
};

}  // namespace lasp::server
