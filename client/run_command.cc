#include "client/run_command.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/command_line.h"
#include "client/commands/commands.h"
#include "client/completion.h"
#include "client/console.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/help_text.h"
#include "client/interrupt.h"
#include "client/name_completion.h"
#include "client/nearest_name.h"
#include "client/session.h"

namespace lasp::client {
namespace {

absl::StatusOr<int> Help(const Words& words, Console* console) {
  if (words.empty()) {
    console->Print(ProgramHelp());
    return kExitOk;
  }
  if (words.front() == "exit-codes") {
    console->Print(ExitCodeHelp());
    return kExitOk;
  }
  const CommandSpec* const command = FindCommand(words.front());
  if (command == nullptr) {
    std::vector<std::string> topics = CommandNames();
    topics.emplace_back("exit-codes");
    return WithHint(
        absl::InvalidArgumentError(absl::StrCat("there is no help on '", words.front(), "'",
                                                Suggestion(words.front(), topics))),
        "'lasp help' lists the commands");
  }
  console->Print(CommandHelp(*command));
  return kExitOk;
}

absl::StatusOr<int> Completion(const Words& words, Console* console) {
  if (words.size() != 1) {
    return absl::InvalidArgumentError("for which shell? bash, zsh or fish");
  }
  const auto script = CompletionScript(words.front());
  if (!script.ok()) {
    return script.status();
  }
  console->Print(*script);
  return kExitOk;
}

absl::StatusOr<int> Dispatch(const CommandLine& line, Session* session) {
  const std::string& command = line.command;
  if (line.help || (command.empty() && !line.version)) {
    return Help(command.empty() ? Words{} : Words{command}, &session->console());
  }
  if (command == "help") {
    return Help(line.words, &session->console());
  }
  if (command == "completion") {
    return Completion(line.words, &session->console());
  }
  if (command == "submit") {
    return Submit(line.submit, session);
  }
  if (command == "get") {
    return Get(line.words, session);
  }
  if (command == "list") {
    return List(line.list, line.words, session);
  }
  if (command == "describe") {
    return Describe(line.words, session);
  }
  if (command == "watch") {
    return Watch(line.words, session);
  }
  if (command == "metrics") {
    return Metrics(line.metrics, line.words, session);
  }
  if (command == "events") {
    return Events(line.events, line.words, session);
  }
  if (command == "plot") {
    return Plot(line.plot, line.words, session);
  }
  if (command == "top") {
    return Top(line.top, session);
  }
  if (command == "logs") {
    return Logs(line.logs, line.words, session);
  }
  if (command == "update") {
    return Update(line.submit.settings, line.words, session);
  }
  if (command == "cancel") {
    return Cancel(line.words, session);
  }
  if (command == "suspend") {
    return Suspend(line.words, line.yes, session);
  }
  if (command == "resume") {
    return Resume(line.words, session);
  }
  if (command == "delete") {
    return Delete(line.words, session);
  }
  if (command == "workers") {
    return Workers(line.words, session);
  }
  if (command == "config") {
    return Config(line.words, session);
  }
  if (command == "audit") {
    return Audit(line.audit, session);
  }
  if (command == "checkpoints") {
    return Checkpoints(line.exporting, line.submit, line.words, session);
  }
  if (command == "sample") {
    return Sample(line.model, line.sample, line.words, session);
  }
  if (command == "evaluate") {
    return Evaluate(line.model, line.evaluate, line.words, session);
  }
  if (command == "backup") {
    return MakeBackup(line.words, session);
  }
  if (command == "doctor") {
    return Doctor(session);
  }
  if (command == "drain") {
    return Drain(line.words, line.undo, session);
  }
  return Version(line.client_only || command.empty(), session);
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments.front() == kNamesCommand) {
    PrintNames({arguments.begin() + 1, arguments.end()});
    return kExitOk;
  }
  const auto line = ParseCommandLine(arguments);
  if (!line.ok()) {
    Console console(ColorMode::kAuto, false, 0);
    console.Complain(ErrorReport("", line.status(), console.Error(), false));
    return kExitUsage;
  }
  Console console(line->global.color, line->global.quiet, line->global.verbosity);
  Session session(line->global, &console);
  auto code = Dispatch(*line, &session);
  if (code.ok()) {
    if (const absl::Status flushed = console.Flush(); !flushed.ok()) {
      code = flushed;
    }
  }
  if (absl::IsCancelled(code.status()) && Interrupted()) {
    return InterruptExitCode();
  }
  if (!code.ok()) {
    console.Complain(
        ErrorReport(line->command, code.status(), console.Error(), console.verbosity() > 0));
    return ExitCode(code.status().code());
  }
  return *code;
}

}  // namespace lasp::client
