#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/exit_code.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/time_text.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::Backup;
using BackupStub = lasp::v1::BackupService::Stub;

// A store of gigabytes on a slow disk.
constexpr absl::Duration kBackupDeadline = absl::Hours(1);

std::string BackupTable(const std::vector<Backup>& backups, bool wide, const Terminal& terminal) {
  std::vector<Column> columns = {{"AGE", true}, {"BYTES", true}, {"FILE"}};
  if (wide) {
    columns.push_back({"SHA256"});
  }
  Table table(std::move(columns));
  for (const Backup& backup : backups) {
    std::vector<Cell> row = {FormatAge(absl::Now() - FromProto(backup.create_time())),
                             absl::StrCat(backup.byte_count()), backup.path()};
    if (wide) {
      row.emplace_back(backup.sha256());
    }
    table.AddRow(std::move(row));
  }
  return table.Render(terminal);
}

absl::StatusOr<int> ListBackups(Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  LASP_ASSIGN_OR_RETURN(const auto response,
                        connection->Call(&connection->backups(), &BackupStub::ListBackups,
                                         lasp::v1::ListBackupsRequest(), kReadDeadline));
  const std::vector<Backup> backups(response.backups().begin(), response.backups().end());
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    for (const Backup& backup : backups) {
      console.Print(backup.name() + "\n");
    }
  } else if (!IsTable(format)) {
    console.Print(MessageArray(backups, format));
  } else if (backups.empty()) {
    console.Note("no backups; 'lasp backup' makes one");
  } else {
    console.Print(BackupTable(backups, format == OutputFormat::kWide, console.Out()));
  }
  return kExitOk;
}

}  // namespace

absl::StatusOr<int> MakeBackup(const Words& words, Session* session) {
  if (words == Words{"list"}) {
    return ListBackups(session);
  }
  if (!words.empty() && words != Words{"create"}) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected create or list, got '", words.front(), "'"));
  }
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  LASP_ASSIGN_OR_RETURN(const Backup backup,
                        connection->Call(&connection->backups(), &BackupStub::CreateBackup,
                                         lasp::v1::CreateBackupRequest(), kBackupDeadline));
  PrintMessage(
      backup, backup.name(),
      [&] {
        return absl::StrCat(backup.path(), ", ", backup.byte_count(), " bytes, sha256 ",
                            backup.sha256(), "\n");
      },
      session);
  return kExitOk;
}

}  // namespace lasp::client
