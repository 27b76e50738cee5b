#include "server/store_facts.h"

#include <array>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

absl::Status NotAStore(const std::string& path, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         absl::StrCat(path, " is no store of a lasp-server: ", why), "NOT_A_STORE",
                         {{"path", path}});
}

bool HasSqliteHeader(const std::string& path) {
  constexpr absl::string_view kHeader("SQLite format 3\0", 16);
  std::array<char, kHeader.size()> begin{};
  std::ifstream file(path, std::ios::binary);
  return file.read(begin.data(), begin.size()) &&
         absl::string_view(begin.data(), begin.size()) == kHeader;
}

absl::StatusOr<std::string> QueryText(const SqliteDatabase& database, const std::string& sql) {
  LASP_ASSIGN_OR_RETURN(SqliteStatement statement, SqliteStatement::Prepare(database, sql));
  LASP_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Text() : "";
}

absl::StatusOr<StoreFacts> ReadFacts(SqliteDatabase* database, const std::string& path) {
  StoreFacts facts;
  LASP_ASSIGN_OR_RETURN(const std::string verdict,
                        QueryText(*database, "PRAGMA integrity_check(1)"));
  if (verdict != "ok") {
    return StoreDamaged(path, verdict);
  }
  LASP_ASSIGN_OR_RETURN(
      const int64_t tables,
      database->QueryInteger(
          "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'jobs')"));
  if (tables != 2) {
    return NotAStore(path, "it is an SQLite file of another program");
  }
  LASP_ASSIGN_OR_RETURN(facts.schema, ReadSchemaState(database));
  if (facts.schema.version > kSchemaVersion) {
    return SchemaTooNew(path, facts.schema.version);
  }
  LASP_ASSIGN_OR_RETURN(facts.uuid,
                        QueryText(*database, "SELECT value FROM meta WHERE key = 'uuid'"));
  LASP_ASSIGN_OR_RETURN(const int64_t application, database->QueryInteger("PRAGMA application_id"));
  // The first releases gave the file no mark.
  if (facts.uuid.empty() || (facts.schema.additions > 0 && application != kStoreApplicationId)) {
    return NotAStore(path, "it bears another mark");
  }
  LASP_ASSIGN_OR_RETURN(facts.jobs, database->QueryInteger("SELECT COUNT(*) FROM jobs"));
  LASP_ASSIGN_OR_RETURN(
      const int64_t micros,
      database->QueryInteger("SELECT value FROM meta WHERE key = 'backup_unix_micros'"));
  if (micros > 0) {
    facts.backup_time = absl::FromUnixMicros(micros);
  }
  return facts;
}

}  // namespace

absl::StatusOr<StoreFacts> ReadStoreFacts(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": there is no such file"));
  }
  if (!HasSqliteHeader(path)) {
    return NotAStore(path, "it is no SQLite file");
  }
  LASP_ASSIGN_OR_RETURN(SqliteDatabase database,
                        SqliteDatabase::Open(path, "", SqliteDatabase::Mode::kReadOnly));
  return ReadFacts(&database, path);
}

}  // namespace lasp::server
