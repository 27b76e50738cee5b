#include "server/sqlite_audit_reader.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

// The rows of one table, from newest to oldest.
class Rows {
 public:
  explicit Rows(SqliteStatement* statement) : statement_(statement) {}

  ~Rows() { statement_->Reset(); }

  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  absl::Status Begin(int64_t before) {
    position = before;
    statement_->Bind(before);
    return Next();
  }

  absl::Status Next() {
    LASP_ASSIGN_OR_RETURN(there_, statement_->Step());
    if (there_) {
      id = statement_->Integer();
      time_micros = statement_->Integer();
      principal = statement_->Text();
      resource = statement_->Text();
      record = statement_->Text();
    }
    return absl::OkStatus();
  }

  bool there() const { return there_; }

  // In front of the rows that are still to come.
  int64_t position = 0;
  int64_t id = 0;
  int64_t time_micros = 0;
  std::string principal;
  std::string resource;
  std::string record;

 private:
  SqliteStatement* const statement_;
  bool there_ = false;
};

bool Selects(const AuditQuery& query, const Rows& row) {
  const absl::Time time = absl::FromUnixMicros(row.time_micros);
  const bool within = query.resource.empty() || (absl::StartsWith(row.resource, query.resource) &&
                                                 (row.resource.size() == query.resource.size() ||
                                                  row.resource[query.resource.size()] == '/'));
  return within && time >= query.start && time < query.end &&
         (query.principal.empty() || query.principal == row.principal);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteAuditReader>> SqliteAuditReader::Open(const std::string& path,
                                                                           const std::string& vfs) {
  auto reader = std::unique_ptr<SqliteAuditReader>(new SqliteAuditReader(path));
  MutexLock lock(&reader->mutex_);
  LASP_ASSIGN_OR_RETURN(reader->database_,
                        SqliteDatabase::Open(path, vfs, SqliteDatabase::Mode::kReadOnly));
  const auto select = [](const char* table) {
    return absl::StrCat("SELECT id, time_unix_micros, principal, resource, record FROM ", table,
                        " WHERE id < ? ORDER BY id DESC");
  };
  LASP_ASSIGN_OR_RETURN(reader->changes_,
                        SqliteStatement::Prepare(reader->database_, select("audit_changes")));
  LASP_ASSIGN_OR_RETURN(reader->refusals_,
                        SqliteStatement::Prepare(reader->database_, select("audit_refusals")));
  return reader;
}

absl::StatusOr<AuditPage> SqliteAuditReader::Read(const AuditQuery& query, int limit) {
  MutexLock lock(&mutex_);
  Rows changes(&changes_);
  Rows refusals(&refusals_);
  LASP_RETURN_IF_ERROR(changes.Begin(query.refusals_only ? 0 : query.before.change));
  LASP_RETURN_IF_ERROR(refusals.Begin(query.before.refusal));
  AuditPage page;
  for (int row = 0; row < kMaxRows && static_cast<int>(page.records.size()) < limit; ++row) {
    if (!changes.there() && !refusals.there()) {
      break;
    }
    const bool change =
        changes.there() && (!refusals.there() || changes.time_micros >= refusals.time_micros);
    Rows& newest = change ? changes : refusals;
    if (Selects(query, newest)) {
      if (!page.records.emplace_back().ParseFromString(newest.record)) {
        return StoreDamaged(path_, "it holds an audit record that cannot be read");
      }
    }
    newest.position = newest.id;
    LASP_RETURN_IF_ERROR(newest.Next());
  }
  page.next = {.change = changes.position, .refusal = refusals.position};
  page.last = !changes.there() && !refusals.there();
  return page;
}

}  // namespace lasp::server
