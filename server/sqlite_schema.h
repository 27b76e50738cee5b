// The tables, and how an older store becomes a newer one.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/sqlite_database.h"

namespace lasp::server {

inline constexpr int64_t kSchemaVersion = 3;

// Brings the store at `path` to the present schema, forward only and in one transaction. An empty
// file gets it whole. FAILED_PRECONDITION (SCHEMA_TOO_NEW) for a store of a later release,
// DATA_LOSS for a damaged one.
absl::Status MigrateSchema(SqliteDatabase* database, const std::string& path);

}  // namespace lasp::server
