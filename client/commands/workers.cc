#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/enum_names.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/job_reference.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/worker_list.h"
#include "client/worker_table.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::Worker;
using AdminStub = lasp::v1::WorkerAdminService::Stub;

std::string WorkerTables(const std::vector<Worker>& workers, Session* session) {
  const Terminal& terminal = session->console().Out();
  const bool wide = session->options().output == OutputFormat::kWide;
  std::string text = WorkerTable(workers, wide, absl::Now()).Render(terminal);
  if (wide) {
    const Table gpus = GpuTable(workers);
    absl::StrAppend(&text, gpus.empty() ? "" : "\n", gpus.empty() ? "" : gpus.Render(terminal));
  }
  return text;
}

void PrintWorker(const Worker& worker, Session* session) {
  PrintMessage(worker, worker.name(), [&] { return WorkerTables({worker}, session); }, session);
}

}  // namespace

absl::StatusOr<int> Workers(const Words& words, Session* session) {
  if (!words.empty()) {
    lasp::v1::GetWorkerRequest request;
    LASP_ASSIGN_OR_RETURN(*request.mutable_name(), WorkerArgument(words));
    LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
    LASP_ASSIGN_OR_RETURN(
        const Worker worker,
        connection->Call(&connection->workers(), &AdminStub::GetWorker, request, kReadDeadline));
    PrintWorker(worker, session);
    return kExitOk;
  }
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  LASP_ASSIGN_OR_RETURN(const std::vector<Worker> workers,
                        ListWorkers(connection, absl::Now() + kReadDeadline));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    for (const Worker& worker : workers) {
      console.Print(worker.name() + "\n");
    }
  } else if (!IsTable(format)) {
    console.Print(MessageArray(workers, format));
  } else if (workers.empty()) {
    console.Note(
        "no workers; start one with: lasp-worker --server HOST:PORT (the --worker_address of the "
        "coordinator)");
  } else {
    console.Print(WorkerTables(workers, session));
  }
  return kExitOk;
}

absl::StatusOr<int> Drain(const Words& words, bool undo, Session* session) {
  lasp::v1::DrainWorkerRequest request;
  LASP_ASSIGN_OR_RETURN(*request.mutable_name(), WorkerArgument(words));
  request.set_undo(undo);
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const auto worker =
      connection->Call(&connection->workers(), &AdminStub::DrainWorker, request, kMutationDeadline);
  if (absl::IsNotFound(worker.status())) {
    return WithHint(worker.status(), "'lasp workers' lists them");
  }
  LASP_RETURN_IF_ERROR(worker.status());
  PrintMessage(
      *worker, worker->name(),
      [&] {
        return absl::StrCat("worker/", ShortName(worker->name()), " ",
                            ShortEnumName(*Worker::State_descriptor(), worker->state()), "\n");
      },
      session);
  return kExitOk;
}

}  // namespace lasp::client
