#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/commands/commands.h"
#include "client/exit_code.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/time_text.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::AuditRecord;
using AuditStub = lasp::v1::AuditService::Stub;

constexpr int kPageSize = 500;

// Oldest first.
absl::StatusOr<std::vector<AuditRecord>> ListRecords(const AuditOptions& options,
                                                     Session* session) {
  lasp::v1::ListAuditRecordsRequest request;
  request.set_principal(options.principal);
  request.set_resource(options.resource);
  request.set_refused(options.refused);
  if (!options.since.empty()) {
    LASP_ASSIGN_OR_RETURN(*request.mutable_start_time(), ParseSince(options.since));
  }
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  std::vector<AuditRecord> records;
  do {
    const auto missing = static_cast<int64_t>(options.limit) - std::ssize(records);
    request.set_page_size(static_cast<int>(std::min<int64_t>(kPageSize, missing)));
    LASP_ASSIGN_OR_RETURN(const auto page,
                          connection->Call(&connection->audit(), &AuditStub::ListAuditRecords,
                                           request, kReadDeadline));
    records.insert(records.end(), page.audit_records().begin(), page.audit_records().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && std::ssize(records) < options.limit);
  std::reverse(records.begin(), records.end());
  return records;
}

std::string Outcome(const AuditRecord& record) {
  if (record.code() == 0) {
    return "done";
  }
  return absl::StrCat(absl::StatusCodeToString(static_cast<absl::StatusCode>(record.code())),
                      record.reason().empty() ? "" : ": ", record.reason());
}

std::string AuditTable(const std::vector<AuditRecord>& records, bool wide,
                       const Terminal& terminal) {
  std::vector<Column> columns = {{"TIME"},     {"WHO"},     {"WHAT"},
                                 {"RESOURCE"}, {"OUTCOME"}, {"TIMES", true}};
  if (wide) {
    for (const char* header : {"ROLE", "FROM", "DETAIL", "UID"}) {
      columns.push_back({header});
    }
  }
  Table table(std::move(columns));
  for (const AuditRecord& record : records) {
    const absl::string_view method = record.method();
    const std::string time =
        absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", FromProto(record.time()), absl::UTCTimeZone());
    std::vector<Cell> row = {time,
                             record.principal().empty() ? "-" : record.principal(),
                             std::string(method.substr(method.find('.') + 1)),
                             record.resource().empty() ? "-" : record.resource(),
                             {Outcome(record), record.code() == 0 ? Style::kPlain : Style::kBad},
                             absl::StrCat(record.count())};
    if (wide) {
      for (const std::string* text :
           {&record.role(), &record.peer(), &record.detail(), &record.uid()}) {
        row.emplace_back(text->empty() ? "-" : *text);
      }
    }
    table.AddRow(std::move(row));
  }
  return table.Render(terminal);
}

}  // namespace

absl::StatusOr<int> Audit(const AuditOptions& options, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::vector<AuditRecord> records, ListRecords(options, session));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    return absl::InvalidArgumentError("audit records have no names: use -o json");
  }
  if (!IsTable(format)) {
    console.Print(MessageArray(records, format));
  } else if (records.empty()) {
    console.Note("no records");
  } else {
    console.Print(AuditTable(records, format == OutputFormat::kWide, console.Out()));
  }
  return kExitOk;
}

}  // namespace lasp::client
