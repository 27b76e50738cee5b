// Reads the audit log, on a read-only connection of its own: a long search holds up nobody else.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "proto/rpc/mutex.h"
#include "server/audit_query.h"
#include "server/sqlite_database.h"

namespace lasp::server {

// Thread-safe; one query at a time.
class SqliteAuditReader {
 public:
  // Rows that one call looks at: a page may be short because few of them were asked for.
  static constexpr int kMaxRows = 20'000;

  static absl::StatusOr<std::unique_ptr<SqliteAuditReader>> Open(const std::string& path,
                                                                 const std::string& vfs);

  // At most `limit` records.
  absl::StatusOr<AuditPage> Read(const AuditQuery& query, int limit);

 private:
  explicit SqliteAuditReader(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  Mutex mutex_;
  SqliteDatabase database_ GUARDED_BY(mutex_);
  SqliteStatement changes_ GUARDED_BY(mutex_);
  SqliteStatement refusals_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
