// The checkpoints of a job: list, describe, verify, delete, export.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/checkpoint_download.h"
#include "client/checkpoint_reference.h"
#include "client/commands/commands.h"
#include "client/description.h"
#include "client/enum_names.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_reference.h"
#include "client/number_text.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/time_text.h"
#include "client/utf8.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::Checkpoint;
using CheckpointStub = lasp::v1::CheckpointService::Stub;

constexpr absl::Duration kVerifyPoll = absl::Milliseconds(500);
// Terabytes over a network file system.
constexpr absl::Duration kVerifyDeadline = absl::Hours(6);

std::string StateText(Checkpoint::State state) {
  return ShortEnumName(*Checkpoint::State_descriptor(), state);
}

std::string AgeText(bool there, const google::protobuf::Timestamp& time) {
  return there ? FormatAge(absl::Now() - FromProto(time)) : "-";
}

std::string CheckpointTable(const std::vector<Checkpoint>& checkpoints, bool wide,
                            const Terminal& terminal) {
  std::vector<Column> columns = {{"STEP", true}, {"STATE"},          {"BYTES", true},
                                 {"AGE", true},  {"VERIFIED", true}, {"GENERATION", true}};
  if (wide) {
    columns.insert(columns.end(), {{"SHARDS", true}, {"PARENT", true}, {"FOLDER"}, {"MESSAGE"}});
  }
  Table table(std::move(columns));
  for (const Checkpoint& checkpoint : checkpoints) {
    std::vector<Cell> row = {absl::StrCat(checkpoint.step()),
                             StateText(checkpoint.state()),
                             FormatRate(static_cast<double>(checkpoint.size_bytes())),
                             AgeText(true, checkpoint.create_time()),
                             AgeText(checkpoint.has_verify_time(), checkpoint.verify_time()),
                             absl::StrCat(checkpoint.generation())};
    if (wide) {
      row.emplace_back(absl::StrCat(checkpoint.shard_count()));
      row.emplace_back(absl::StrCat(checkpoint.parent_step()));
      row.emplace_back(checkpoint.folder());
      row.emplace_back(checkpoint.message());
    }
    table.AddRow(std::move(row));
  }
  return table.Render(terminal);
}

absl::StatusOr<int> ListOf(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  LASP_ASSIGN_OR_RETURN(const std::vector<Checkpoint> checkpoints,
                        AllCheckpoints(job.name(), session));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    for (const Checkpoint& checkpoint : checkpoints) {
      console.Print(checkpoint.name() + "\n");
    }
  } else if (!IsTable(format)) {
    console.Print(MessageArray(checkpoints, format));
  } else if (checkpoints.empty()) {
    console.Note(absl::StrCat("no checkpoints of job/", ShortName(job.name()), " yet"));
  } else {
    console.Print(CheckpointTable(checkpoints, format == OutputFormat::kWide, console.Out()));
  }
  return kExitOk;
}

std::string DescribeCheckpoint(const Checkpoint& checkpoint, const Terminal& terminal) {
  Description description(terminal);
  description.Line("Checkpoint", checkpoint.name(), Style::kBold);
  description.Line("State", StateText(checkpoint.state()));
  description.Line("Message", checkpoint.message());
  description.Line("Generation", absl::StrCat(checkpoint.generation()));
  description.Line("Began from", checkpoint.parent_step() == 0
                                     ? "the first step"
                                     : absl::StrCat("step ", checkpoint.parent_step()));
  description.Line("Size", absl::StrCat(checkpoint.size_bytes(), " bytes in ",
                                        checkpoint.shard_count(), " shards"));
  description.Line("Created", FormatTimestamp(checkpoint.create_time()));
  if (checkpoint.has_commit_time()) {
    description.Line("Committed", FormatTimestamp(checkpoint.commit_time()));
  }
  description.Line("Verified", checkpoint.has_verify_time()
                                   ? FormatTimestamp(checkpoint.verify_time())
                                   : "not yet");
  description.Line("Folder", checkpoint.folder());
  return description.Take();
}

absl::StatusOr<int> Verify(const Checkpoint& checkpoint, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::VerifyCheckpointRequest request;
  request.set_name(checkpoint.name());
  LASP_RETURN_IF_ERROR(connection
                           ->Call(&connection->checkpoints(), &CheckpointStub::VerifyCheckpoint,
                                  request, kMutationDeadline)
                           .status());
  const InterruptScope scope([] {});
  const absl::Time deadline = absl::Now() + kVerifyDeadline;
  lasp::v1::GetCheckpointRequest get;
  get.set_name(checkpoint.name());
  while (absl::Now() < deadline) {
    LASP_ASSIGN_OR_RETURN(const Checkpoint now,
                          connection->Call(&connection->checkpoints(),
                                           &CheckpointStub::GetCheckpoint, get, kReadDeadline));
    const bool read =
        now.has_verify_time() && FromProto(now.verify_time()) > FromProto(checkpoint.verify_time());
    if (now.state() != Checkpoint::STATE_COMMITTED || read) {
      PrintMessage(
          now, now.name(),
          [&] {
            return read ? absl::StrCat("checkpoints/", now.step(), " is whole: ", now.size_bytes(),
                                       " bytes as they were written\n")
                        : absl::StrCat("checkpoints/", now.step(), " is ", StateText(now.state()),
                                       ": ", Printable(now.message()), "\n");
          },
          session);
      return read ? kExitOk : kExitFailed;
    }
    if (WaitForInterrupt(kVerifyPoll)) {
      return InterruptExitCode();
    }
  }
  return absl::DeadlineExceededError(
      "the checkpoint has not been read back yet; look again later "
      "with 'lasp checkpoints describe'");
}

absl::StatusOr<int> Remove(const Checkpoint& checkpoint, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::DeleteCheckpointRequest request;
  request.set_name(checkpoint.name());
  LASP_ASSIGN_OR_RETURN(
      const Checkpoint removed,
      connection->Call(&connection->checkpoints(), &CheckpointStub::DeleteCheckpoint, request,
                       kMutationDeadline));
  PrintMessage(
      removed, removed.name(),
      [&] { return absl::StrCat("checkpoints/", removed.step(), " is being removed\n"); }, session);
  return kExitOk;
}

absl::StatusOr<int> Export(const Checkpoint& checkpoint, const ExportOptions& options,
                           Session* session) {
  LASP_ASSIGN_OR_RETURN(const ExportedFolder folder,
                        DownloadCheckpoint(checkpoint, options.folder, FolderReader::kAnyone,
                                           options.type, options.max_file_bytes, session));
  PrintMessage(
      checkpoint, checkpoint.name(),
      [&] {
        return absl::StrCat("checkpoints/", checkpoint.step(), " exported to ", options.folder,
                            ": ", folder.bytes, " bytes in ", folder.files,
                            folder.files == 1 ? " file\n" : " files\n");
      },
      session);
  return kExitOk;
}

}  // namespace

absl::StatusOr<int> Checkpoints(const ExportOptions& options, const SubmitOptions& submit,
                                const Words& words, Session* session) {
  const std::string verb = words.empty() ? "" : words.front();
  const Words rest(words.empty() ? words.begin() : words.begin() + 1, words.end());
  if (verb == "list") {
    return ListOf(rest, session);
  }
  if (verb == "import") {
    return ImportModel(submit, rest, session);
  }
  if (verb != "describe" && verb != "verify" && verb != "delete" && verb != "export") {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected list, describe, verify, delete, export or import, got '", verb, "'"));
  }
  if (verb == "export" && options.folder.empty()) {
    return WithHint(absl::InvalidArgumentError("where to? name a folder with --to"),
                    "lasp checkpoints export NAME --to DIR");
  }
  if (verb == "delete" && rest.size() != 2) {
    return absl::InvalidArgumentError("expected NAME and STEP: which one is to be deleted");
  }
  LASP_ASSIGN_OR_RETURN(const Checkpoint checkpoint, TheCheckpoint(rest, session));
  if (verb == "verify") {
    return Verify(checkpoint, session);
  }
  if (verb == "delete") {
    return Remove(checkpoint, session);
  }
  if (verb == "export") {
    return Export(checkpoint, options, session);
  }
  PrintMessage(
      checkpoint, checkpoint.name(),
      [&] { return DescribeCheckpoint(checkpoint, session->console().Out()); }, session);
  return kExitOk;
}

}  // namespace lasp::client
