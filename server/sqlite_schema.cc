#include "server/sqlite_schema.h"

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

// Step i brings a store of version i to version i + 1. Never changed once released.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;

CREATE TABLE jobs (
  id         INTEGER PRIMARY KEY,
  uid        TEXT NOT NULL,
  name       TEXT NOT NULL,
  state      INTEGER NOT NULL,
  revision   INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  spec       BLOB NOT NULL,
  job        BLOB NOT NULL
);
CREATE UNIQUE INDEX jobs_by_name ON jobs (name);

CREATE TABLE transitions (
  job_id     INTEGER NOT NULL,
  revision   INTEGER NOT NULL,
  transition BLOB NOT NULL,
  PRIMARY KEY (job_id, revision)
) WITHOUT ROWID;

CREATE TABLE generations (
  job_id            INTEGER NOT NULL,
  generation        INTEGER NOT NULL,
  start_unix_micros INTEGER NOT NULL,
  PRIMARY KEY (job_id, generation)
) WITHOUT ROWID;

CREATE TABLE rank_exits (
  job_id     INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  rank       INTEGER NOT NULL,
  exit_code  INTEGER NOT NULL,
  PRIMARY KEY (job_id, generation, rank)
) WITHOUT ROWID;

CREATE TABLE steps (
  job_id     INTEGER NOT NULL,
  step       INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  metrics    BLOB NOT NULL,
  PRIMARY KEY (job_id, step)
) WITHOUT ROWID;

CREATE TABLE workers (
  worker_id       TEXT PRIMARY KEY,
  incarnation     TEXT NOT NULL,
  slot_count      INTEGER NOT NULL,
  drain_requested INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE requests (
  key                TEXT PRIMARY KEY,
  fingerprint        INTEGER NOT NULL,
  job_name           TEXT NOT NULL,
  job_uid            TEXT NOT NULL,
  expire_unix_micros INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_expiry ON requests (expire_unix_micros);

CREATE TABLE tombstones (revision INTEGER PRIMARY KEY, name TEXT NOT NULL);
)sql",
    // Rows at the end of their tables only: an index over names or random keys costs each submit a
    // page of its own, and nothing is looked up by either, for the coordinator holds both in
    // memory.
    R"sql(
DROP INDEX jobs_by_name;
ALTER TABLE requests RENAME TO keyed_requests;
DROP INDEX requests_by_expiry;
CREATE TABLE requests (
  key                TEXT NOT NULL,
  fingerprint        INTEGER NOT NULL,
  job_name           TEXT NOT NULL,
  job_uid            TEXT NOT NULL,
  expire_unix_micros INTEGER NOT NULL
);
INSERT INTO requests SELECT key, fingerprint, job_name, job_uid, expire_unix_micros
  FROM keyed_requests ORDER BY expire_unix_micros;
CREATE INDEX requests_by_expiry ON requests (expire_unix_micros);
DROP TABLE keyed_requests;
)sql",
    // GPUs. Beside the jobs, whose rows are written anew with each change of state.
    R"sql(
ALTER TABLE workers ADD COLUMN gpu_slot_count INTEGER NOT NULL DEFAULT 0;
CREATE TABLE gemm_records (job_id INTEGER PRIMARY KEY, record TEXT NOT NULL);
)sql",
};
static_assert(std::size(kMigrations) == kSchemaVersion);

// What came after the last migration and hides from a release that does not know it: new tables,
// keys of `meta`. Step i brings a store of i additions to i + 1. Never changed once released.
constexpr const char* kAdditions[] = {
    // Who changed what. The application id is `lasp` in ASCII: it tells a store from other files.
    R"sql(
PRAGMA application_id = 1818325872;
CREATE TABLE audit_changes (
  id               INTEGER PRIMARY KEY,
  time_unix_micros INTEGER NOT NULL,
  principal        TEXT NOT NULL,
  resource         TEXT NOT NULL,
  record           BLOB NOT NULL
);
CREATE TABLE audit_refusals (
  id               INTEGER PRIMARY KEY,
  time_unix_micros INTEGER NOT NULL,
  principal        TEXT NOT NULL,
  resource         TEXT NOT NULL,
  record           BLOB NOT NULL
);
)sql",
    // Checkpoints. A release that does not know them starts its jobs from the first step.
    R"sql(
CREATE TABLE checkpoints (
  job_id     INTEGER NOT NULL,
  step       INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  state      INTEGER NOT NULL,
  checkpoint BLOB NOT NULL,
  PRIMARY KEY (job_id, step, generation)
) WITHOUT ROWID;
CREATE TABLE checkpoint_shards (
  job_id     INTEGER NOT NULL,
  step       INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  rank       INTEGER NOT NULL,
  shard      BLOB NOT NULL,
  PRIMARY KEY (job_id, step, generation, rank)
) WITHOUT ROWID;
)sql",
    // Hosts that fail. A release that does not know them places ranks there as anywhere.
    R"sql(
CREATE TABLE worker_failures (
  worker_id        TEXT NOT NULL,
  time_unix_micros INTEGER NOT NULL
);
CREATE INDEX worker_failures_by_worker ON worker_failures (worker_id, time_unix_micros);
)sql",
    // What is to go from the checkpoints' disk. A release that does not know of it leaves it to the
    // next one that does.
    R"sql(
CREATE TABLE checkpoint_removals (
  job_id     INTEGER PRIMARY KEY,
  uid        TEXT NOT NULL,
  folder     TEXT NOT NULL,
  generation INTEGER NOT NULL
);
)sql",
};
static_assert(std::size(kAdditions) == kSchemaAdditions);

absl::Status CheckWhole(SqliteDatabase* database, const std::string& path) {
  LASP_ASSIGN_OR_RETURN(SqliteStatement check,
                        SqliteStatement::Prepare(*database, "PRAGMA quick_check(1)"));
  LASP_ASSIGN_OR_RETURN(const bool row, check.Step());
  const std::string verdict = row ? check.Text() : "no answer";
  return verdict == "ok" ? absl::OkStatus() : StoreDamaged(path, verdict);
}

}  // namespace

absl::StatusOr<SchemaState> ReadSchemaState(SqliteDatabase* database) {
  SchemaState state;
  LASP_ASSIGN_OR_RETURN(state.version, database->QueryInteger("PRAGMA user_version"));
  if (state.version > 0) {
    LASP_ASSIGN_OR_RETURN(
        state.additions,
        database->QueryInteger("SELECT value FROM meta WHERE key = 'schema_additions'"));
  }
  return state;
}

absl::Status SchemaTooNew(const std::string& path, int64_t version) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat(path, ": the store has schema version ", version,
                                      ", this lasp-server knows versions up to ", kSchemaVersion,
                                      "; start the newer release that wrote it"),
                         "SCHEMA_TOO_NEW");
}

absl::Status MigrateSchema(SqliteDatabase* database, const std::string& path) {
  LASP_ASSIGN_OR_RETURN(const SchemaState state, ReadSchemaState(database));
  const int64_t version = state.version;
  if (version > kSchemaVersion) {
    return SchemaTooNew(path, version);
  }
  LASP_RETURN_IF_ERROR(CheckWhole(database, path));
  if (state.current()) {
    return absl::OkStatus();
  }
  LASP_RETURN_IF_ERROR(database->Execute("BEGIN IMMEDIATE"));
  for (int64_t step = version; step < kSchemaVersion; ++step) {
    LASP_RETURN_IF_ERROR(database->Execute(kMigrations[step]));
  }
  if (version == 0) {
    LASP_RETURN_IF_ERROR(database->Execute(
        absl::StrCat("INSERT INTO meta (key, value) VALUES ('uuid', '", NewUuid(), "')")));
  }
  for (int64_t step = state.additions; step < kSchemaAdditions; ++step) {
    LASP_RETURN_IF_ERROR(database->Execute(kAdditions[step]));
  }
  LASP_RETURN_IF_ERROR(database->Execute(
      absl::StrCat("INSERT INTO meta (key, value) VALUES ('schema_additions', ", kSchemaAdditions,
                   ") ON CONFLICT (key) DO UPDATE SET value = MAX(value, excluded.value)")));
  LASP_RETURN_IF_ERROR(database->Execute(absl::StrCat("PRAGMA user_version = ", kSchemaVersion)));
  return database->Execute("COMMIT");
}

}  // namespace lasp::server
