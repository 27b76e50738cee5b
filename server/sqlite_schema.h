// The tables, and how an older store becomes a newer one.
//
// `user_version` is the oldest schema that a program must know to use the store: a program of a
// lower one refuses it. What a release adds without changing what was there (`meta` counts it in
// schema_additions) leaves that number alone, so that the release before still works on the store,
// blind to the additions. A change that is no addition raises the number, and may be made only in a
// release after the one that stopped using what it changes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/sqlite_database.h"

namespace lasp::server {

inline constexpr int64_t kSchemaVersion = 3;
inline constexpr int64_t kSchemaAdditions = 4;
// Of the file, so that other SQLite files are told apart.
inline constexpr int64_t kStoreApplicationId = 0x6c617370;

struct SchemaState {
  // 0 for an empty file.
  int64_t version = 0;
  int64_t additions = 0;

  // Whether this program has nothing to add. Additions it does not know do no harm.
  bool current() const { return version == kSchemaVersion && additions >= kSchemaAdditions; }
};

absl::StatusOr<SchemaState> ReadSchemaState(SqliteDatabase* database);

// FAILED_PRECONDITION: the store at `path` is of a later release.
absl::Status SchemaTooNew(const std::string& path, int64_t version);

// Brings the store at `path` to the present schema, forward only and in one transaction. An empty
// file gets it whole. FAILED_PRECONDITION (SCHEMA_TOO_NEW) for a store of a later release,
// DATA_LOSS for a damaged one.
absl::Status MigrateSchema(SqliteDatabase* database, const std::string& path);

}  // namespace lasp::server
