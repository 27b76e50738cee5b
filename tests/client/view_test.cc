// How a job looks: tables, progress, descriptions, error reports; and the command line itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "client/command_line.h"
#include "client/completion.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/help_text.h"
#include "client/job_description.h"
#include "client/job_view.h"
#include "client/output_table.h"
#include "client/utf8.h"
#include "proto/rpc/error_details.h"
#include "tests/client/fake_server.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using lasp::testing::StatusIs;
using lasp::v1::TrainingJob;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Terminal Wide(int width, bool utf8) {
  Terminal terminal;
  terminal.is_tty = true;
  terminal.width = width;
  terminal.utf8 = utf8;
  return terminal;
}

TEST(ProgressLine, TellsStepLossRateAndTime) {
  EXPECT_EQ(ProgressLine(RunningJob("a", 24), absl::Now(), Terminal{}),
            "step 24/100 24% | loss 2.713 | 14.2k tok/s | eta 2h13m");
}

TEST(ProgressLine, HasABarWhereThereIsRoom) {
  EXPECT_EQ(ProgressLine(RunningJob("a", 50), absl::Now(), Wide(100, false)),
            "########-------- step 50/100 50% | loss 2.713 | 14.2k tok/s | eta 2h13m");
  EXPECT_THAT(ProgressLine(RunningJob("a", 50), absl::Now(), Wide(100, true)),
              HasSubstr("\xE2\x96\x88\xE2\x96\x91"));
}

TEST(ProgressLine, NeverReachesTheLastColumn) {
  TrainingJob job = RunningJob("a", 50);
  job.set_generation(3);
  job.mutable_progress()->set_skipped_step_count(2);
  job.mutable_progress()->set_eval_loss(3);
  TrainingJob waiting = QueuedJob("b");
  waiting.set_message(std::string(300, 'x'));
  for (int width = 1; width < 140; ++width) {
    for (const TrainingJob& each : {job, waiting, FailedJob("c")}) {
      EXPECT_LT(DisplayWidth(ProgressLine(each, absl::Now(), Wide(width, true))), width) << width;
    }
  }
  EXPECT_EQ(ProgressLine(job, absl::Now(), Wide(36, true)), "step 50/100 50% | loss 2.713");
}

TEST(ProgressLine, SaysWhyAJobWaits) {
  EXPECT_THAT(ProgressLine(QueuedJob("a"), absl::Now(), Terminal{}),
              AllOf(HasSubstr("queued "), HasSubstr("waits for 4 slots; 2 are free")));
}

TEST(JobTable, ShowsOneLineAJob) {
  TrainingJob job = RunningJob("quickstart", 24);
  job.set_display_name("evil\x1b]0;name\x07");
  const std::string text =
      JobTable({job, QueuedJob("b")}, {.wide = true}, absl::Now()).Render(Terminal{});
  EXPECT_THAT(text, HasSubstr("NAME        STATE      STEP   LOSS  TOKENS/S  GEN"));
  EXPECT_THAT(text, HasSubstr("quickstart  RUNNING  24/100  2.713     14.2k    1  20m  1x1"));
  EXPECT_THAT(text, HasSubstr("evil]0;name"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Describe, TellsWhatHappenedAndWhy) {
  TrainingJob job = FailedJob("quickstart");
  google::rpc::ErrorInfo info;
  info.set_reason("LOSS_NOT_FINITE");
  (*info.mutable_metadata())["step"] = "7";
  job.mutable_error()->add_details()->PackFrom(info);
  auto* placement = job.add_placements();
  placement->set_worker("workers/host-1");
  auto* transition = job.add_transitions();
  transition->set_to_state(TrainingJob::STATE_FAILED);
  transition->set_reason("LOSS_NOT_FINITE");
  transition->set_actor("agent/host-1");
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}), Not(HasSubstr("Device")));
  job.set_device(lasp::v1::TrainingSpec::DEVICE_GPU);
  const std::string text = DescribeJob(job, absl::Now(), Terminal{});
  EXPECT_THAT(text, HasSubstr("Device:        GPU\n"));
  for (const char* part :
       {"Name:          projects/default/trainingJobs/quickstart", "State:         FAILED",
        "FAILED_PRECONDITION: 11 steps in a row", "reason LOSS_NOT_FINITE, step 7",
        "RANK  WORKER  SLOT\n     0  host-1     0", "agent/host-1", "max_steps: 100"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Describe, ExplainsTheWait) {
  TrainingJob job = QueuedJob("waits");
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}), Not(HasSubstr("Waits for:")));
  job.set_reason("WAITING_FOR_SLOTS");
  job.mutable_spec()->mutable_parallelism()->mutable_sequence_parallel()->set_size(2);
  auto* wait = job.mutable_slot_wait();
  wait->set_device(lasp::v1::TrainingSpec::DEVICE_GPU);
  wait->set_needed_slots(4);
  wait->set_free_slots(2);
  wait->set_kept_slots(1);
  wait->set_busy_slots(5);
  wait->set_away_slots(1);
  wait->set_position(1);
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}),
              HasSubstr("Waits for:\n"
                        "  needs       4 GPU slots, all at once; each SP group of 2 on one worker "
                        "where it fits\n"
                        "  there are   8 GPU slots: 2 free (1 kept for jobs about to start again), "
                        "5 busy, 1 on workers that are lost, not connected or draining\n"
                        "  position    the first in the GPU queue\n"
                        "  blocked by  3 GPU slots that must become free\n"));
  job.set_reason("WAITING_FOR_TURN");
  wait->set_position(3);
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}),
              AllOf(HasSubstr("3 in the GPU queue: 2 jobs start before it"),
                    HasSubstr("blocked by  its turn")));
  job.set_reason("NO_CAPACITY");
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}), HasSubstr("the size of the cluster"));
  job.set_state(TrainingJob::STATE_RECOVERING);
  wait->mutable_earliest_start_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) + 30);
  wait->add_avoided_workers("workers/bad\x1b[31mhost");
  const std::string text = DescribeJob(job, absl::Now(), Terminal{});
  EXPECT_THAT(text, HasSubstr("blocked by  the pause after its last failure: "));
  EXPECT_THAT(text, AllOf(HasSubstr("avoids      bad[31mhost"), Not(HasSubstr("\x1b"))));
  job.set_state(TrainingJob::STATE_RUNNING);
  EXPECT_THAT(DescribeJob(job, absl::Now(), Terminal{}), Not(HasSubstr("Waits for:")));
}

TEST(ErrorReport, NamesEveryFieldAndAHint) {
  const absl::Status status = WithHint(
      InvalidFields({{"spec.max_steps", "must be at least 1"}, {"spec.seed", "is \x1b[odd"}}),
      "mend it");
  EXPECT_EQ(ErrorReport("submit", status, Terminal{}, false),
            "error: submit: 2 things are wrong:\n"
            "  spec.max_steps: must be at least 1\n"
            "  spec.seed: is [odd\n"
            "hint: mend it");
  EXPECT_EQ(ErrorReport("get", absl::InternalError("broken"), Terminal{}, true),
            "error: get: broken\ncode: INTERNAL");
}

TEST(ErrorReport, SendsNobodyToStartACoordinatorThatAnswers) {
  const auto report = [](const absl::Status& status) {
    return ErrorReport("submit", status, Terminal{}, false);
  };
  EXPECT_THAT(report(ErrorWithReason(absl::StatusCode::kUnavailable, "the disk is full",
                                     "STORE_UNAVAILABLE")),
              Not(HasSubstr("start a coordinator")));
  EXPECT_THAT(report(Unreachable("127.0.0.1:1", "connection refused")),
              HasSubstr("start a coordinator"));
  EXPECT_THAT(report(ErrorWithReason(absl::StatusCode::kUnimplemented, "not served here",
                                     "METHOD_NOT_SERVED")),
              HasSubstr("--api_address"));
  EXPECT_THAT(report(absl::UnavailableError("Socket closed")), HasSubstr("start a coordinator"));
}

TEST(Table, CutsWordsAndNeverNumbers) {
  Table table({{"NAME"}, {"RATE", true}, {"MESSAGE"}});
  table.AddRow({std::string("quickstart"), std::string("5.000e-04"),
                std::string("a message that takes its time")});
  const Terminal narrow{.utf8 = true, .width = 34};
  EXPECT_EQ(table.Render(narrow, false), "quickstart  5.000e-04  a message …\n");
  // Nothing is left to cut: the line is longer than the terminal.
  EXPECT_THAT(table.Render(Terminal{.utf8 = true, .width = 12}, false),
              AllOf(HasSubstr("5.000e-04"), HasSubstr("quick…")));
}

TEST(ErrorReport, GivesTheRequestIdWhereTheOutcomeIsUnknown) {
  EXPECT_THAT(ErrorReport("submit", WithRequestId(absl::DeadlineExceededError("late"), "id-1"),
                          Terminal{}, false),
              HasSubstr("request id: id-1"));
  EXPECT_THAT(
      ErrorReport("submit", WithRequestId(absl::NotFoundError("no"), "id-1"), Terminal{}, false),
      Not(HasSubstr("request id")));
}

TEST(ExitCode, IsTheContract) {
  EXPECT_EQ(ExitCode(absl::StatusCode::kOk), 0);
  EXPECT_EQ(ExitCode(absl::StatusCode::kInternal), 1);
  EXPECT_EQ(ExitCode(absl::StatusCode::kInvalidArgument), 2);
  EXPECT_EQ(ExitCode(absl::StatusCode::kNotFound), 3);
  EXPECT_EQ(ExitCode(absl::StatusCode::kPermissionDenied), 4);
  EXPECT_EQ(ExitCode(absl::StatusCode::kAlreadyExists), 5);
  EXPECT_EQ(ExitCode(absl::StatusCode::kFailedPrecondition), 5);
  EXPECT_EQ(ExitCode(absl::StatusCode::kUnavailable), 6);
  EXPECT_EQ(ExitCode(absl::StatusCode::kDeadlineExceeded), 6);
  EXPECT_EQ(ExitCode(absl::StatusCode::kCancelled), 130);
}

TEST(CommandLine, TakesFlagsBeforeAndAfterTheCommand) {
  const auto line = ParseCommandLine({"-s", "host:1", "submit", "-f", "a.yaml", "-o", "json",
                                      "--set", "a=[1, 2]", "--set=b=-1", "-vv", "--wait"});
  LASP_ASSERT_OK(line);
  EXPECT_EQ(line->command, "submit");
  EXPECT_EQ(line->global.server, "host:1");
  EXPECT_EQ(line->global.output, OutputFormat::kJson);
  EXPECT_EQ(line->global.verbosity, 2);
  EXPECT_EQ(line->submit.file, "a.yaml");
  EXPECT_EQ(line->submit.settings, (std::vector<std::string>{"a=[1, 2]", "b=-1"}));
  EXPECT_TRUE(line->submit.wait);
}

TEST(CommandLine, TakesNamesThatAreCommands) {
  const auto line = ParseCommandLine({"cancel", "list"});
  LASP_ASSERT_OK(line);
  EXPECT_EQ(line->command, "cancel");
  EXPECT_EQ(line->words, std::vector<std::string>{"list"});
}

TEST(CommandLine, TakesEveryWayToGiveAValue) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"-o", "json"}, {"-ojson"}, {"-o=json"}, {"--output", "json"}, {"--output=json"}}) {
    std::vector<std::string> arguments = {"list"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    const auto line = ParseCommandLine(arguments);
    LASP_ASSERT_OK(line);
    EXPECT_EQ(line->global.output, OutputFormat::kJson);
  }
  EXPECT_EQ(ParseCommandLine({"list", "-o", "json", "-o", "yaml"})->global.output,
            OutputFormat::kYaml);
}

TEST(CommandLine, DryRunMeansTheServer) {
  EXPECT_EQ(ParseCommandLine({"submit", "--dry-run", "-f", "a"})->submit.dry_run, DryRun::kServer);
  EXPECT_EQ(ParseCommandLine({"submit", "-f", "a", "--dry-run=client"})->submit.dry_run,
            DryRun::kClient);
  EXPECT_EQ(ParseCommandLine({"submit", "-f", "a"})->submit.dry_run, DryRun::kNone);
}

TEST(CommandLine, NamesWhatItDoesNotKnow) {
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(ParseCommandLine({"sumbit"}),
              StatusIs(kCode, "unknown command 'sumbit'; did you mean 'submit'?"));
  EXPECT_THAT(ParseCommandLine({"submit", "--wiat"}),
              StatusIs(kCode, "unknown flag --wiat; did you mean '--wait'?"));
  EXPECT_THAT(ParseCommandLine({"list", "--sever=x:1"}),
              StatusIs(kCode, "unknown flag --sever; did you mean '--server'?"));
  EXPECT_THAT(ParseCommandLine({"get", "a", "-o", "xml"}),
              StatusIs(kCode, HasSubstr("--output xml: expected one of table, wide, json")));
  EXPECT_THAT(ParseCommandLine({"logs", "a", "--rank", "-1"}),
              StatusIs(kCode, HasSubstr("--rank -1: expected a whole number")));
  EXPECT_THAT(ParseCommandLine({"metrics", "a", "--points", "99999"}),
              StatusIs(kCode, HasSubstr("from 1 to 10000")));
  EXPECT_THAT(ParseCommandLine({"list", "-s", "http://host:1"}),
              StatusIs(kCode, HasSubstr("expected HOST:PORT")));
  EXPECT_THAT(ParseCommandLine({"list", "-s", "host:99999"}),
              StatusIs(kCode, HasSubstr("HOST:PORT")));
  EXPECT_THAT(ParseCommandLine({"list", "--timeout", "soon"}),
              StatusIs(kCode, HasSubstr("length of time")));
  EXPECT_THAT(ParseCommandLine({"list", "-p", "My Project"}), StatusIs(kCode, HasSubstr("id")));
  EXPECT_THAT(ParseCommandLine({"version", "x"}),
              StatusIs(kCode, HasSubstr("unexpected word 'x'")));
  EXPECT_THAT(ParseCommandLine({"submit", "-f"}), StatusIs(kCode, "--file needs a value"));
  EXPECT_THAT(ParseCommandLine({"submit", "job.yaml"}),
              StatusIs(kCode, HasSubstr("give the file with -f")));
}

TEST(CommandLine, AddsTheDefaultPort) {
  EXPECT_EQ(ParseCommandLine({"list", "-s", "host"})->global.server, "host:7070");
  EXPECT_EQ(ParseCommandLine({"list", "-s", "[::1]"})->global.server, "[::1]:7070");
  EXPECT_EQ(ParseCommandLine({"list", "-s", "[::1]:80"})->global.server, "[::1]:80");
}

TEST(Help, FitsATerminalAndNamesEveryFlag) {
  for (const CommandSpec& command : Commands()) {
    const std::string help = CommandHelp(command);
    EXPECT_THAT(ProgramHelp(), HasSubstr(command.name));
    EXPECT_THAT(help, HasSubstr("Examples:\n  ")) << command.name;
    for (const FlagSpec& flag : command.flags) {
      EXPECT_THAT(help, HasSubstr(flag.name));
    }
    size_t start = 0;
    while (start < help.size()) {
      const size_t end = help.find('\n', start);
      EXPECT_LE(end - start, 80U) << help.substr(start, end - start);
      start = end + 1;
    }
  }
}

TEST(Help, IsOfOneForm) {
  EXPECT_EQ(CommandHelp(*FindCommand("events")),
            R"(Show what happened to jobs and workers.

Usage: lasp events [NAME | worker NAME] [flags]

The latest changes of state, the oldest of them first: of one job all there
were, of everything together as many as the coordinator holds. --watch goes on
with new ones, through restarts of the coordinator too; a job's ends with it.

Flags:
  -w, --watch         Go on with new events
  -n, --limit N       At most so many of those there are (default 50)
      --warnings      Only what was lost: generations, jobs, workers
  -A, --all-projects  Of every project

Examples:
  lasp events
  lasp events quickstart --watch
  lasp events worker gpu-host-3
  lasp events --all-projects --warnings -o json

Flags of every command (--server, --project, -o, ...): lasp --help
)");
  for (const char* word : {"plto", "evnets", "docter"}) {
    EXPECT_THAT(ParseCommandLine({word}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("did you mean '")));
  }
}

class Completion : public ::testing::Test {
 protected:
  // What bash offers for a line that ends where the cursor is.
  std::string Bash(const std::string& words, int index) {
    const std::string script = directory_.Write("lasp.bash", *CompletionScript("bash"));
    const std::string command = "bash --norc --noprofile -c 'source " + script + "; COMP_WORDS=(" +
                                words + "); COMP_CWORD=" + std::to_string(index) +
                                "; _lasp; echo \"${COMPREPLY[*]}\"' 2>&1";
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) {
      ADD_FAILURE() << "cannot start bash";
      return "";
    }
    std::string output;
    char buffer[4096];
    size_t count = 0;
    while ((count = fread(buffer, 1, sizeof(buffer), pipe)) > 0) {
      output.append(buffer, count);
    }
    EXPECT_EQ(pclose(pipe), 0) << output;
    return output;
  }

  lasp::testing::TempDirectory directory_;
};

TEST_F(Completion, BashOffersCommandsFlagsAndValues) {
  EXPECT_EQ(Bash("lasp su", 1), "submit suspend\n");
  EXPECT_EQ(Bash("lasp submit --d", 2), "--dry-run\n");
  EXPECT_EQ(Bash("lasp list --state R", 3), "RUNNING RECOVERING\n");
  EXPECT_EQ(Bash("lasp get x -o j", 4), "json\n");
  EXPECT_EQ(Bash("lasp completion \"\"", 2).substr(0, 13), "bash zsh fish");
  EXPECT_EQ(Bash("lasp help exit", 2), "exit-codes\n");
}

TEST_F(Completion, EveryShellKnowsEveryCommandAndFlag) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto script = CompletionScript(shell);
    LASP_ASSERT_OK(script);
    for (const CommandSpec& command : Commands()) {
      EXPECT_THAT(*script, HasSubstr(command.name)) << shell;
      for (const FlagSpec& flag : command.flags) {
        EXPECT_THAT(*script, HasSubstr(flag.name.substr(2))) << shell;
      }
    }
  }
  EXPECT_THAT(CompletionScript("powershell"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bash, zsh or fish")));
}

}  // namespace
}  // namespace lasp::client
