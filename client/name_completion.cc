#include "client/name_completion.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/command_line.h"
#include "client/context_file.h"
#include "client/job_reference.h"
#include "client/session.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using JobStub = lasp::v1::TrainingJobService::Stub;

// A person waits for it with a finger on the key.
constexpr absl::Duration kPatience = absl::Milliseconds(700);
constexpr int kMostNames = 200;

bool IsPlain(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

// Bash takes `--server=host:1` for five words.
std::vector<std::string> Joined(const std::vector<std::string>& words) {
  std::vector<std::string> joined;
  bool open = false;
  for (const std::string& word : words) {
    const bool glue = word == "=" || word == ":";
    if (!joined.empty() && (glue || open)) {
      joined.back() += word;
    } else {
      joined.push_back(word);
    }
    open = glue;
  }
  return joined;
}

// The flags among the words that say whom to ask, each with its value.
std::vector<std::string> ConnectionFlags(const std::vector<std::string>& words) {
  constexpr const char* kFlags[] = {"--server",   "-s",        "--project",
                                    "-p",         "--context", "--tls_ca",
                                    "--tls_cert", "--tls_key", "--token_file"};
  std::vector<std::string> flags;
  for (size_t i = 0; i < words.size(); ++i) {
    for (const char* const flag : kFlags) {
      if (absl::StartsWith(words[i], absl::StrCat(flag, "="))) {
        const std::vector<std::string> parts = absl::StrSplit(words[i], absl::MaxSplits('=', 1));
        flags.insert(flags.end(), parts.begin(), parts.end());
      } else if (words[i] == flag && i + 1 < words.size()) {
        flags.emplace_back(flag);
        flags.push_back(words[++i]);
        break;
      }
    }
  }
  return flags;
}

absl::StatusOr<std::set<std::string>> ContextNames() {
  LASP_ASSIGN_OR_RETURN(const ContextFile file, ContextFile::Load(ContextFile::DefaultPath()));
  std::set<std::string> names;
  for (const auto& [name, context] : file.contexts) {
    names.insert(name);
  }
  return names;
}

absl::StatusOr<std::set<std::string>> JobNames(Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::ListTrainingJobsRequest request;
  request.set_parent(session->ProjectName());
  request.set_page_size(kMostNames);
  LASP_ASSIGN_OR_RETURN(
      const auto page,
      connection->Call(&connection->jobs(), &JobStub::ListTrainingJobs, request, kPatience));
  std::set<std::string> names;
  for (const auto& job : page.training_jobs()) {
    names.insert(ShortName(job.name()));
  }
  return names;
}

absl::StatusOr<std::set<std::string>> WorkerNames(Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::ListWorkersRequest request;
  request.set_page_size(kMostNames);
  LASP_ASSIGN_OR_RETURN(
      const auto page,
      connection->Call(&connection->workers(), &lasp::v1::WorkerAdminService::Stub::ListWorkers,
                       request, kPatience));
  std::set<std::string> names;
  for (const auto& worker : page.workers()) {
    names.insert(ShortName(worker.name()));
  }
  return names;
}

// Those of the contexts, and those that have jobs.
absl::StatusOr<std::set<std::string>> ProjectNames(Session* session) {
  std::set<std::string> names;
  if (const auto file = ContextFile::Load(ContextFile::DefaultPath()); file.ok()) {
    for (const auto& [name, context] : file->contexts) {
      names.insert(context.project);
    }
  }
  const absl::StatusOr<Connection*> connection = session->Connect();
  if (!connection.ok()) {
    return names;
  }
  lasp::v1::ListTrainingJobsRequest request;
  request.set_parent("projects/-");
  request.set_page_size(kMostNames);
  const auto page =
      (*connection)->Call(&(*connection)->jobs(), &JobStub::ListTrainingJobs, request, kPatience);
  if (page.ok()) {
    for (const auto& job : page->training_jobs()) {
      const std::vector<std::string> parts = absl::StrSplit(job.name(), '/');
      names.insert(parts.size() > 1 ? parts[1] : "");
    }
  }
  return names;
}

absl::StatusOr<std::set<std::string>> Names(const std::string& kind,
                                            const std::vector<std::string>& words,
                                            Console* console) {
  if (kind == "contexts") {
    return ContextNames();
  }
  std::vector<std::string> arguments = ConnectionFlags(Joined(words));
  arguments.insert(arguments.begin(), "list");
  LASP_ASSIGN_OR_RETURN(CommandLine line, ParseCommandLine(arguments));
  line.global.timeout = kPatience;
  Session session(line.global, console);
  if (kind == "jobs") {
    return JobNames(&session);
  }
  if (kind == "workers") {
    return WorkerNames(&session);
  }
  return kind == "projects" ? ProjectNames(&session) : std::set<std::string>();
}

}  // namespace

void PrintNames(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    return;
  }
  Console console(ColorMode::kNever, /*quiet=*/true, 0);
  const auto names = Names(arguments.front(), {arguments.begin() + 1, arguments.end()}, &console);
  if (!names.ok()) {
    return;
  }
  for (const std::string& name : *names) {
    if (IsPlain(name)) {
      console.Print(name + "\n");
    }
  }
  (void)console.Flush();
}

}  // namespace lasp::client
