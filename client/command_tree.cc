#include "client/command_tree.h"

#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/enum_names.h"
#include "client/event_flags.h"
#include "client/flag_values.h"
#include "client/global_flags.h"
#include "client/model_flags.h"
#include "client/plot_flags.h"
#include "client/submit_flags.h"
#include "client/time_text.h"
#include "lasp/v1/training_job.pb.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

constexpr int64_t kMaxStep = std::numeric_limits<int64_t>::max();
constexpr int kMaxRank = 1'000'000;
constexpr int kMaxLines = 1'000'000'000;
constexpr int kMaxPoints = 10'000;

absl::Status Ok() { return absl::OkStatus(); }

CommandSpec ListCommand() {
  return {"list",
          "Jobs",
          "[jobs|workers]",
          "List jobs, the newest first",
          "A filter joins terms with AND: state, display_name, name and labels.KEY with =\n"
          "or !=, create_time with < <= > >= too.",
          {"lasp list", "lasp list --state RUNNING --label team=nlp",
           "lasp list --filter 'create_time>\"2026-11-01T00:00:00Z\"' --order name",
           "lasp list --all -o json"},
          {{"--state", '\0', "STATE", "Only jobs in this state",
            [](const std::string& value, Line* line) {
              line->list.state = value;
              return Ok();
            },
            ShortEnumNames(*lasp::v1::TrainingJob::State_descriptor())},
           {"--label", 'l', "KEY=VALUE", "Only jobs with this label; may be repeated",
            [](const std::string& value, Line* line) {
              line->list.labels.push_back(value);
              return Ok();
            }},
           {"--filter", '\0', "EXPRESSION", "Terms joined by AND, as in the example",
            [](const std::string& value, Line* line) {
              line->list.filter = value;
              return Ok();
            }},
           {"--order", '\0', "FIELD", "create_time, update_time, name, display_name [desc]",
            [](const std::string& value, Line* line) {
              line->list.order_by = value;
              return Ok();
            }},
           {"--limit", 'n', "N", "At most so many (default 50)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--limit", value, 1, kMaxLines, &line->list.limit);
            }},
           {"--all", 'a', "", "Every job, not only the first 50",
            [](const std::string&, Line* line) {
              line->list.all_pages = true;
              return Ok();
            }},
           {"--all-projects", 'A', "", "Of every project",
            [](const std::string&, Line* line) {
              line->list.all_projects = true;
              return Ok();
            }}},
          {"jobs", "workers"}};
}

CommandSpec MetricsCommand() {
  return {"metrics",
          "Jobs",
          "NAME",
          "Show the figures of a job's steps",
          "On a terminal a long run is thinned evenly; the first and last steps are kept.",
          {"lasp metrics quickstart", "lasp metrics quickstart -o json | jq '.[-1].loss'",
           "lasp metrics quickstart --from 100 --to 200", "lasp metrics quickstart --follow"},
          {{"--from", '\0', "STEP", "The first step (default 1)",
            [](const std::string& value, Line* line) {
              return SetNumber<int64_t>("--from", value, 1, kMaxStep, &line->metrics.from_step);
            }},
           {"--to", '\0', "STEP", "The last step (default: the last there is)",
            [](const std::string& value, Line* line) {
              return SetNumber<int64_t>("--to", value, 1, kMaxStep, &line->metrics.to_step);
            }},
           {"--points", '\0', "N", "At most so many steps (default 10000; 40 on a terminal)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--points", value, 1, kMaxPoints, &line->metrics.max_points);
            }},
           {"--follow", 'f', "", "Go on with each new step until the job ends",
            [](const std::string&, Line* line) {
              line->metrics.follow = true;
              return Ok();
            }}}};
}

CommandSpec TopCommand() {
  return {"top",
          "Jobs",
          "",
          "Show the jobs that run, and where their steps' time goes",
          "Shares of rank 0's latest step: reading data, forward, backward, waiting for the\n"
          "state of the rank before it (SP) and for the reduction of gradients, optimizer.\n"
          "On a terminal it is drawn anew until Ctrl-C; elsewhere it is printed once.",
          {"lasp top", "lasp top --interval 10s", "lasp top --once -o json"},
          {{"--interval", '\0', "TIME", "Between two looks (default 2s)",
            [](const std::string& value, Line* line) {
              const auto span = ParseSpan(value);
              if (!span.ok()) {
                return absl::InvalidArgumentError(
                    absl::StrCat("--interval ", value, ": expected a length of time such as 10s"));
              }
              line->top.interval = *span;
              return Ok();
            }},
           {"--once", '\0', "", "Print what there is and leave",
            [](const std::string&, Line* line) {
              line->top.once = true;
              return Ok();
            }},
           {"--limit", 'n', "N", "At most so many jobs (default 20)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--limit", value, 1, kMaxLines, &line->top.limit);
            }}}};
}

CommandSpec LogsCommand() {
  return {"logs",
          "Jobs",
          "NAME",
          "Show what a job's ranks wrote",
          "Of the latest generation, all ranks, unless flags say otherwise.",
          {"lasp logs quickstart -f", "lasp logs quickstart --rank 0 --since 10m",
           "lasp logs quickstart --tail 20 --generation 1"},
          {{"--follow", 'f', "", "Go on with new lines until the job ends",
            [](const std::string&, Line* line) {
              line->logs.follow = true;
              return Ok();
            }},
           {"--rank", 'r', "N", "Only this rank",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--rank", value, 0, kMaxRank, &line->logs.rank);
            }},
           {"--since", '\0', "TIME", "Only lines since: 10m, or 2026-11-21T20:20:25Z",
            [](const std::string& value, Line* line) {
              line->logs.since = value;
              return Ok();
            }},
           {"--tail", '\0', "N", "Only the last lines of each rank",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--tail", value, 1, kMaxLines, &line->logs.tail);
            }},
           {"--generation", '\0', "N", "Of an earlier generation",
            [](const std::string& value, Line* line) {
              return SetNumber<int64_t>("--generation", value, 1, kMaxStep, &line->logs.generation);
            }},
           {"--timestamps", '\0', "", "Put each line's time before it",
            [](const std::string&, Line* line) {
              line->logs.timestamps = true;
              return Ok();
            }}}};
}

CommandSpec AuditCommand() {
  return {"audit",
          "Service",
          "",
          "Show who changed what, and who was refused",
          "The newest records, oldest first. A resource selects what is in it too:\n"
          "projects/nlp selects its jobs. Needs a token of an admin of all projects.",
          {"lasp audit --since 1d", "lasp audit --resource projects/nlp --principal ann",
           "lasp audit --refused -o json"},
          {{"--principal", '\0', "NAME", "Only of this caller: a token's name, or local",
            [](const std::string& value, Line* line) {
              line->audit.principal = value;
              return Ok();
            }},
           {"--resource", '\0', "NAME", "Only of this job, worker, project or backup",
            [](const std::string& value, Line* line) {
              line->audit.resource = value;
              return Ok();
            }},
           {"--since", '\0', "TIME", "Only since: 10m, or 2026-11-21T20:20:25Z",
            [](const std::string& value, Line* line) {
              line->audit.since = value;
              return Ok();
            }},
           {"--refused", '\0', "", "Only refusals",
            [](const std::string&, Line* line) {
              line->audit.refused = true;
              return Ok();
            }},
           {"--limit", 'n', "N", "At most so many (default 50)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--limit", value, 1, kMaxLines, &line->audit.limit);
            }}}};
}

FlagSpec YesFlag() {
  return {"--yes", 'y', "", "Do not ask", [](const std::string&, Line* line) {
            line->yes = true;
            return Ok();
          }};
}

std::vector<CommandSpec> MakeCommands() {
  return {
      SubmitCommand(),
      {"get",
       "Jobs",
       "NAME | jobs | worker NAME | workers",
       "Show a job or a worker in one line",
       "`get job NAME`, `get job/NAME` and `get NAME` are the same; the beginning of an\n"
       "id is enough where only one job has it.",
       {"lasp get quickstart", "lasp get job/quickstart -o json", "lasp get jobs"}},
      ListCommand(),
      {"describe",
       "Jobs",
       "NAME",
       "Show all about a job: why it waits or failed, where it runs, its history",
       "",
       {"lasp describe quickstart"}},
      {"watch",
       "Jobs",
       "[NAME]",
       "Watch a job until it ends, or all jobs",
       "With a name: exits with 0 when the job SUCCEEDED, with 1 when it FAILED or was\n"
       "CANCELLED. Ctrl-C ends the watching; the job goes on. With -o json one object\n"
       "a line.",
       {"lasp watch quickstart", "lasp watch -o json"}},
      EventsCommand(),
      MetricsCommand(),
      PlotCommand(),
      TopCommand(),
      LogsCommand(),
      UpdateCommand(),
      {"cancel", "Jobs", "NAME", "End a job", "", {"lasp cancel quickstart"}},
      {"suspend",
       "Jobs",
       "NAME",
       "Stop a job and give its slots to others",
       "It ends its step and saves a checkpoint, from which it goes on when it is\n"
       "resumed. Where the coordinator keeps none it would start again from step 1:\n"
       "there the command asks first on a terminal; --yes does not.",
       {"lasp suspend quickstart"},
       {YesFlag()}},
      {"resume", "Jobs", "NAME", "Queue a suspended job again", "", {"lasp resume quickstart"}},
      {"delete",
       "Jobs",
       "NAME",
       "Delete a job that has ended, with its metrics, logs and checkpoints",
       "Needs the whole name.",
       {"lasp delete quickstart"}},
      CheckpointsCommand(),
      SampleCommand(),
      EvaluateCommand(),
      {"workers",
       "Workers",
       "[NAME]",
       "List the workers, their free slots and their GPUs",
       "",
       {"lasp workers", "lasp workers -o wide", "lasp workers -o json"}},
      {"drain",
       "Workers",
       "NAME",
       "Stop a worker from taking ranks; its jobs start anew elsewhere",
       "",
       {"lasp drain gpu-host-3", "lasp drain gpu-host-3 --undo"},
       {{"--undo", '\0', "", "Let it take ranks again",
         [](const std::string&, Line* line) {
           line->undo = true;
           return Ok();
         }}}},
      AuditCommand(),
      {"backup",
       "Service",
       "[create | list]",
       "Back up the coordinator's store while it serves, or list the backups",
       "The copy lies on the coordinator's host, in its --backup_dir, checked, with its\n"
       "SHA-256 beside it. lasp-server --restore_from puts one in the place of a store.\n"
       "Needs a token of an admin of all projects.",
       {"lasp backup", "lasp backup list -o wide"},
       {},
       {"create", "list"}},
      {"doctor",
       "Other",
       "",
       "Check the way to the coordinator, the coordinator and its agents",
       "Credentials, address, certificates, token, versions, clocks, disks, leases and\n"
       "GPUs: a line each, and how to mend what is wrong. Checks that cannot be made,\n"
       "because the coordinator is not reached, are skipped. Each waits for 5s at most.\n"
       "Exits with 1 where a check failed, with 0 otherwise.",
       {"lasp doctor", "lasp doctor --context prod -o json"}},
      {"version",
       "Other",
       "",
       "Show the versions of this program and of the coordinator",
       "",
       {"lasp version --client"},
       {{"--client", '\0', "", "Only this program's",
         [](const std::string&, Line* line) {
           line->client_only = true;
           return Ok();
         }}}},
      {"config",
       "Other",
       "VERB [NAME]",
       "Keep coordinators and their credentials by name",
       "get-contexts and view show them; use-context NAME, set-context NAME and\n"
       "delete-context NAME change them. set-context takes --server, --project,\n"
       "--token_file, --tls_ca, --tls_cert and --tls_key; a context that is there keeps\n"
       "what is not given. They lie in ~/.config/lasp/config.yaml, which only its owner\n"
       "may read. A flag goes before an environment variable, and both go before the\n"
       "context; a context's credentials are only used for its own server.",
       {"lasp config set-context prod -s HOST --tls_ca ca.crt --token_file token",
        "lasp config use-context prod", "lasp list --context prod"},
       {},
       {"get-contexts", "view", "use-context", "set-context", "delete-context"}},
      {"completion",
       "Other",
       "bash|zsh|fish",
       "Print a script that completes commands, flags and names",
       "It asks the coordinator for names of jobs, workers and projects, and offers none\n"
       "where that does not answer within a second or two.",
       {"source <(lasp completion bash)", "lasp completion zsh > ~/.zfunc/_lasp",
        "lasp completion fish > ~/.config/fish/completions/lasp.fish"},
       {},
       {"bash", "zsh", "fish"}},
      {"help",
       "Other",
       "[COMMAND | exit-codes]",
       "Help on a command, or on the exit codes",
       "",
       {"lasp help submit", "lasp help exit-codes"}},
  };
}

// Of whom the NAME of a command is.
NameKind WordNames(const CommandSpec& command) {
  if (!absl::StrContains(command.words, "NAME")) {
    return NameKind::kNone;
  }
  if (command.name == "config") {
    return NameKind::kContexts;
  }
  return command.group == "Workers" ? NameKind::kWorkers : NameKind::kJobs;
}

}  // namespace

const std::vector<FlagSpec>& GlobalFlags() {
  static const auto* const flags = new std::vector<FlagSpec>(MakeGlobalFlags());
  return *flags;
}

const std::vector<CommandSpec>& Commands() {
  static const auto* const commands = [] {
    auto* const made = new std::vector<CommandSpec>(MakeCommands());
    for (CommandSpec& command : *made) {
      command.word_names = WordNames(command);
    }
    return made;
  }();
  return *commands;
}

const CommandSpec* FindCommand(const std::string& name) {
  for (const CommandSpec& command : Commands()) {
    if (command.name == name) {
      return &command;
    }
  }
  return nullptr;
}

std::vector<std::string> CommandNames() {
  std::vector<std::string> names;
  names.reserve(Commands().size());
  for (const CommandSpec& command : Commands()) {
    names.push_back(command.name);
  }
  return names;
}

}  // namespace lasp::client
