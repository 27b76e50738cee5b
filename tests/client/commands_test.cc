// The real program against a coordinator of the test's own: what it asks, prints, and exits with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "tests/client/commands_fixture.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using CommandsTest = CommandsFixture;
using lasp::v1::TrainingJob;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr char kJob[] =
    "display_name: quickstart\nspec:\n  max_steps: 100\n  data: {sequence_length: 2047}\n";

TEST_F(CommandsTest, SubmitCreatesAJob) {
  const ProcessResult result = Run({"submit", "-f", "-", "--set", "spec.max_steps=5", "--set",
                                    "labels.team=nlp", "--project", "lab"},
                                   kJob);
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.out, "job/job-abc123 created\n");
  EXPECT_EQ(result.error, "follow it with: lasp watch job-abc123\n");
  const auto request = server_.last_create();
  EXPECT_EQ(request.parent(), "projects/lab");
  EXPECT_EQ(request.training_job().display_name(), "quickstart");
  EXPECT_EQ(request.training_job().labels().at("team"), "nlp");
  EXPECT_EQ(request.training_job().spec().max_steps(), 5);
  EXPECT_EQ(request.training_job().spec().data().sequence_length(), 2047);
  EXPECT_THAT(request.request_id(), MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-.*"));
  EXPECT_FALSE(request.validate_only());
}

TEST_F(CommandsTest, SubmitPrintsTheJobInEachForm) {
  const auto document = json::parse(Run({"submit", "-f", "-", "-o", "json"}, kJob).out);
  EXPECT_EQ(document["state"], "QUEUED");
  EXPECT_EQ(document["spec"]["max_steps"], 100);
  EXPECT_EQ(document["generation"], 0);
  EXPECT_EQ(Run({"submit", "-f", "-", "-o", "name", "--id", "b"}, kJob).out,
            "projects/default/trainingJobs/b\n");
  EXPECT_THAT(Run({"submit", "-f", "-", "-o", "yaml", "--id", "c"}, kJob).out,
              HasSubstr("state: QUEUED\n"));
  EXPECT_EQ(Run({"submit", "-f", "-", "-q", "--id", "d"}, kJob).error, "");
}

TEST_F(CommandsTest, DryRunStoresNothing) {
  const ProcessResult result = Run({"submit", "-f", "-", "--dry-run=server", "-o", "name"}, kJob);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_TRUE(server_.last_create().validate_only());
  EXPECT_EQ(Run({"submit", "-f", "-", "--dry-run=client"}, kJob).exit_code, 0);
  EXPECT_EQ(server_.create_count(), 1);
  EXPECT_EQ(Run({"get", "job-abc123"}).exit_code, 3);
}

TEST_F(CommandsTest, ViolationsPointIntoTheFile) {
  server_.FailWith(InvalidFields({{"spec.data.sequence_length", "2047 is not a multiple of 2"},
                                  {"spec.optimizer.learning_rate", "must be greater than 0"}}));
  const ProcessResult result = Run({"submit", "-f", "-"}, kJob);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.error,
            "error: submit: 2 things are wrong:\n"
            "  spec.data.sequence_length: 2047 is not a multiple of 2 (line 4)\n"
            "  spec.optimizer.learning_rate: must be greater than 0\n");
}

TEST_F(CommandsTest, WrongFilesNeverReachTheServer) {
  lasp::testing::TempDirectory directory;
  const ProcessResult missing = Run({"submit", "-f", directory.Join("no.yaml")});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.error, HasSubstr("no.yaml"));
  EXPECT_EQ(Run({"submit"}).exit_code, 2);
  EXPECT_EQ(Run({"submit", "-f", "-"}, "spec: {max_step: 5}").exit_code, 2);
  EXPECT_EQ(Run({"submit", "-f", "-", "--set", "spec.max_step=5"}, kJob).exit_code, 2);
  EXPECT_EQ(server_.create_count(), 0);
}

TEST_F(CommandsTest, WaitExitsWithTheJobsFate) {
  EndOnWatch(SucceededJob("job-abc123"));
  const ProcessResult done = Run({"submit", "-f", "-", "--wait"}, kJob);
  EXPECT_EQ(done.exit_code, 0) << done.error;
  EXPECT_EQ(done.out, "job/job-abc123 created\n");
  EXPECT_THAT(done.error, HasSubstr("job/job-abc123 RUNNING: step 24/100 24% | loss 2.713"));
  EXPECT_THAT(done.error, HasSubstr("job/job-abc123 SUCCEEDED"));
  EXPECT_THAT(done.error, Not(HasSubstr("\x1b")));
  EXPECT_EQ(server_.last_watch().filter(), "name=\"projects/default/trainingJobs/job-abc123\"");
}

TEST_F(CommandsTest, WaitTellsWhyAJobFailed) {
  EndOnWatch(FailedJob("job-abc123"));
  const ProcessResult failed = Run({"submit", "-f", "-", "--wait", "-o", "json"}, kJob);
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_EQ(json::parse(failed.out)["state"], "FAILED");
  EXPECT_THAT(failed.error, HasSubstr("error: job/job-abc123: FAILED: 11 steps in a row"));
  EXPECT_THAT(failed.error, HasSubstr("lasp describe job-abc123"));
}

TEST_F(CommandsTest, WaitExitsWithOneWhenTheJobIsCancelled) {
  TrainingJob cancelled = QueuedJob("job-abc123");
  cancelled.set_state(TrainingJob::STATE_CANCELLED);
  EndOnWatch(cancelled);
  EXPECT_EQ(Run({"submit", "-f", "-", "--wait"}, kJob).exit_code, 1);
}

TEST_F(CommandsTest, WaitOutlivesALostConnection) {
  int watches = 0;
  server_.OnWatch([&watches](FakeServer* server) {
    if (++watches == 1) {
      server->PutJob(RunningJob("job-abc123", 24));
      server->BreakWatches();
    } else {
      server->PutJob(SucceededJob("job-abc123"));
    }
  });
  const ProcessResult result = Run({"submit", "-f", "-", "--wait"}, kJob);
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_GE(server_.watch_count(), 2);
}

TEST_F(CommandsTest, AProxyForTheWebIsNotForTheOwnMachine) {
  const Environment proxy = {{"http_proxy", "http://127.0.0.1:1"},
                             {"https_proxy", "http://127.0.0.1:1"}};
  EXPECT_EQ(Run({"list", "-o", "json"}, "", proxy).out, "[]\n");
}

TEST_F(CommandsTest, GetTakesEveryWayToNameAJob) {
  server_.PutJob(RunningJob("quickstart", 24));
  server_.PutJob(QueuedJob("other-1"));
  server_.PutJob(QueuedJob("other-2"));
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"quickstart"},
                                             {"job", "quickstart"},
                                             {"job/quickstart"},
                                             {"jobs/quickstart"},
                                             {"quick"},
                                             {"job/quick"},
                                             {"projects/default/trainingJobs/quickstart"}}) {
    std::vector<std::string> arguments = {"get", "-o", "name"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.out, "projects/default/trainingJobs/quickstart\n") << result.error;
  }
  const ProcessResult table = Run({"get", "job", "quickstart"});
  EXPECT_THAT(table.out, StartsWith("NAME        STATE      STEP   LOSS  TOKENS/S  GEN"));
  EXPECT_THAT(table.out, HasSubstr("quickstart  RUNNING  24/100  2.713     14.2k    1  20m\n"));
  const auto document = json::parse(Run({"get", "job/quickstart", "-o", "json"}).out);
  EXPECT_EQ(document["state"], "RUNNING");
  EXPECT_EQ(document["generation"], 1);
  EXPECT_EQ(document["progress"]["remaining_duration"], "8000s");
  EXPECT_THAT(Run({"get", "jobs"}).out, HasSubstr("other-2"));

  const ProcessResult ambiguous = Run({"get", "other"});
  EXPECT_EQ(ambiguous.exit_code, 2);
  EXPECT_THAT(ambiguous.error, HasSubstr("'other' means 2 jobs: other-1, other-2"));
  EXPECT_EQ(Run({"get", "other-"}).exit_code, 2);
  const ProcessResult none = Run({"get", "quikstart"});
  EXPECT_EQ(none.exit_code, 3);
  EXPECT_THAT(none.error, HasSubstr("there is no job 'quikstart' in the project 'default'; did you "
                                    "mean 'quickstart'?\nhint: "));
  EXPECT_EQ(Run({"get", "Quick!"}).exit_code, 2);
  EXPECT_EQ(Run({"get"}).exit_code, 2);
  EXPECT_EQ(Run({"get", "a", "b"}).exit_code, 2);
}

TEST_F(CommandsTest, ListPagesAndFilters) {
  for (int i = 0; i < 60; ++i) {
    server_.PutJob(QueuedJob("job-" + std::to_string(i)));
  }
  const ProcessResult first = Run({"list", "-o", "name"});
  EXPECT_EQ(std::count(first.out.begin(), first.out.end(), '\n'), 50);
  EXPECT_THAT(first.error, HasSubstr("the first 50 jobs; --all shows every one"));
  EXPECT_EQ(json::parse(Run({"list", "--all", "-o", "json"}).out).size(), 60U);
  EXPECT_EQ(json::parse(Run({"list", "-n", "3", "-o", "json"}).out).size(), 3U);
  EXPECT_EQ(Run({"list", "-o", "yaml", "-n", "1"}).out.substr(0, 7), "- name:");

  EXPECT_THAT(Run({"list", "-A", "-n", "1"}).out, StartsWith("PROJECT  NAME   STATE"));
  Run({"list", "--state", "running", "--label", "team=n\"lp", "--filter", "display_name=x",
       "--order", "name desc", "-A"});
  EXPECT_EQ(server_.last_list().filter(),
            "display_name=x AND state=RUNNING AND labels.team=\"n\\\"lp\"");
  EXPECT_EQ(server_.last_list().order_by(), "name desc");
  EXPECT_EQ(server_.last_list().parent(), "projects/-");
  const ProcessResult wrong = Run({"list", "--state", "RUNING"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.error, HasSubstr("did you mean 'RUNNING'?"));
  EXPECT_EQ(Run({"list", "--label", "team"}).exit_code, 2);
}

TEST_F(CommandsTest, AnEmptyListIsAnEmptyArray) {
  EXPECT_EQ(Run({"list", "-o", "json"}).out, "[]\n");
  EXPECT_EQ(Run({"list"}).out, "");
  EXPECT_EQ(Run({"list"}).error, "no jobs in the project 'default'\n");
  EXPECT_EQ(Run({"workers", "-o", "json"}).out, "[]\n");
}

TEST_F(CommandsTest, DescribeTellsWhyAJobWaits) {
  server_.PutJob(QueuedJob("quickstart"));
  const ProcessResult result = Run({"describe", "quickstart"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("State:         QUEUED\n"));
  EXPECT_THAT(result.out, HasSubstr("Waits because: waits for 4 slots; 2 are free\n"));
}

TEST_F(CommandsTest, WatchPrintsChangesAndEndsWithTheJob) {
  server_.PutJob(QueuedJob("job-abc123"));
  EndOnWatch(SucceededJob("job-abc123"));
  const ProcessResult table = Run({"watch", "job-abc123"});
  EXPECT_EQ(table.exit_code, 0) << table.error;
  EXPECT_THAT(table.out, HasSubstr("TIME      NAME"));
  EXPECT_THAT(table.out, AllOf(HasSubstr("QUEUED"), HasSubstr("RUNNING"), HasSubstr("SUCCEEDED")));
}

TEST_F(CommandsTest, WatchGivesOneObjectALine) {
  server_.PutJob(QueuedJob("job-abc123"));
  EndOnWatch(FailedJob("job-abc123"));
  const ProcessResult result = Run({"watch", "job/job-abc123", "-o", "json"});
  EXPECT_EQ(result.exit_code, 1);
  std::vector<std::string> states;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    states.push_back(json::parse(line)["state"]);
  }
  EXPECT_EQ(states, (std::vector<std::string>{"QUEUED", "RUNNING", "FAILED"}));
}

TEST_F(CommandsTest, StatesAreChangedWithRequestIds) {
  server_.PutJob(RunningJob("quickstart", 5));
  EXPECT_EQ(Run({"resume", "quickstart"}).out, "job/quickstart QUEUED\n");
  const std::string first = server_.last_request_id();
  EXPECT_EQ(Run({"cancel", "quick"}).out, "job/quickstart CANCELLED\n");
  EXPECT_EQ(first.size(), 36U);
  EXPECT_NE(first, server_.last_request_id());
  EXPECT_EQ(json::parse(Run({"cancel", "quickstart", "-o", "json"}).out)["state"], "CANCELLED");
}

TEST_F(CommandsTest, UpdateChangesWhatIsNamedAlone) {
  auto job = RunningJob("quickstart", 5);
  job.set_display_name("first");
  (*job.mutable_labels())["team"] = "nlp";
  (*job.mutable_labels())["old"] = "x";
  job.mutable_checkpoint_retention()->set_keep_every_steps(10);
  server_.PutJob(job);
  const ProcessResult done = Run({"update", "quick", "--set", "labels.old=null", "--set",
                                  "labels.new=1.5", "--set", "checkpoint_retention.keep_last=7"});
  EXPECT_EQ(done.out, "job/quickstart updated\n") << done.error;
  const auto updates = server_.updates();
  ASSERT_EQ(updates.size(), 2U) << "the job had moved on";
  EXPECT_THAT(updates[1].update_mask().paths(), ElementsAre("checkpoint_retention", "labels"));
  const auto& changed = updates[1].training_job();
  EXPECT_THAT(changed.labels(), UnorderedElementsAre(Pair("team", "nlp"), Pair("new", "1.5")));
  EXPECT_EQ(changed.checkpoint_retention().keep_last(), 7);
  EXPECT_EQ(changed.checkpoint_retention().keep_every_steps(), 10);
}

TEST_F(CommandsTest, UpdateSaysWhatCannotBeChanged) {
  server_.PutJob(RunningJob("quickstart", 5));
  EXPECT_THAT(Run({"update", "quickstart"}).error, HasSubstr("--set labels.team=nlp"));
  const ProcessResult spec = Run({"update", "quickstart", "--set", "spec.seed=2"});
  EXPECT_EQ(spec.exit_code, 2);
  EXPECT_THAT(spec.error, HasSubstr("--from"));
  EXPECT_THAT(Run({"update", "quickstart", "--set", "state=RUNNING"}).error,
              HasSubstr("is set by the coordinator"));
  EXPECT_TRUE(server_.updates().empty());
}

TEST_F(CommandsTest, SuspendSaysThatProgressIsLost) {
  // Without a terminal nobody is asked, but it is said.
  for (const bool yes : {false, true}) {
    server_.PutJob(RunningJob("quickstart", 5));
    const ProcessResult done =
        yes ? Run({"suspend", "quickstart", "--yes"}) : Run({"suspend", "quickstart"});
    EXPECT_EQ(done.exit_code, 0);
    EXPECT_EQ(done.out, "job/quickstart SUSPENDED\n");
    EXPECT_THAT(done.error, HasSubstr("will start again from step 1"));
  }
}

TEST_F(CommandsTest, AReaderThatLeavesEndsTheProgram) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::LogLine> lines(50'000);
  for (auto& line : lines) {
    line.set_text("a line that fills the pipe");
  }
  server_.SetLogLines(lines);
  const std::string command = std::string(LASP_BINARY) + " logs quickstart -s " +
                              server_.address() + " 2>&1 | head -n 2 | wc -l";
  FILE* const pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char buffer[64] = {};
  EXPECT_NE(fgets(buffer, sizeof(buffer), pipe), nullptr);
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(std::string(buffer), "2\n");
}

TEST_F(CommandsTest, AFullDiskIsAnError) {
  server_.PutJob(RunningJob("quickstart", 5));
  const std::string command =
      std::string(LASP_BINARY) + " list -s " + server_.address() + " 2>/dev/null >/dev/full";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
}

TEST_F(CommandsTest, DeleteNeedsAnEndedJobAndItsWholeName) {
  server_.PutJob(RunningJob("running", 5));
  server_.PutJob(SucceededJob("done"));
  const ProcessResult running = Run({"delete", "running"});
  EXPECT_EQ(running.exit_code, 5);
  EXPECT_THAT(running.error, HasSubstr("hint: end it first: lasp cancel running"));
  EXPECT_EQ(Run({"delete", "don"}).exit_code, 3);
  EXPECT_EQ(Run({"delete", "done"}).out, "job/done deleted\n");
  EXPECT_EQ(Run({"get", "done"}).exit_code, 3);
}

TEST_F(CommandsTest, VersionComparesBothEnds) {
  const ProcessResult both = Run({"version"});
  EXPECT_THAT(both.out, MatchesRegex("client [^\n]+\nserver 9.9.9 \\(feedface\\) at [^\n]+\n"));
  EXPECT_THAT(both.error, HasSubstr("different versions"));
  EXPECT_EQ(json::parse(Run({"version", "-o", "json"}).out)["server"]["version"], "9.9.9");
  EXPECT_EQ(Run({"--version"}).exit_code, 0);
}

struct Failure {
  absl::StatusCode code;
  int exit_code;
};

TEST_F(CommandsTest, ExitCodesFollowTheError) {
  for (const Failure& failure : {Failure{absl::StatusCode::kInternal, 1},
                                 {absl::StatusCode::kInvalidArgument, 2},
                                 {absl::StatusCode::kNotFound, 3},
                                 {absl::StatusCode::kPermissionDenied, 4},
                                 {absl::StatusCode::kUnauthenticated, 4},
                                 {absl::StatusCode::kFailedPrecondition, 5},
                                 {absl::StatusCode::kAlreadyExists, 5},
                                 {absl::StatusCode::kDeadlineExceeded, 6}}) {
    server_.FailWith(absl::Status(failure.code, "for a test"));
    const ProcessResult result = Run({"submit", "-f", "-", "-v"}, kJob);
    EXPECT_EQ(result.exit_code, failure.exit_code);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.error, HasSubstr("error: submit: for a test\n"));
    EXPECT_THAT(result.error, HasSubstr("request id: " + server_.last_create().request_id()));
  }
}

TEST_F(CommandsTest, HelpGoesToStdout) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"--help"},
                                             {"help"},
                                             {"submit", "--help"},
                                             {"help", "submit"},
                                             {"help", "exit-codes"},
                                             {"completion", "bash"},
                                             {"completion", "zsh"},
                                             {"completion", "fish"}}) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.error, "");
    EXPECT_GT(result.out.size(), 100U);
  }
  EXPECT_EQ(Run({"help", "nothing"}).exit_code, 2);
  const ProcessResult wrong = Run({"sumbit"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_EQ(wrong.out, "");
  EXPECT_EQ(wrong.error,
            "error: unknown command 'sumbit'; did you mean 'submit'?\n"
            "hint: 'lasp --help' lists the commands\n");
}

TEST(WithoutServer, ExitsSoonWithAddressAndHint) {
  std::string address;
  {
    FakeServer gone;
    address = gone.address();
  }
  const absl::Time begin = absl::Now();
  const ProcessResult result = RunLasp({"list"}, {{"LASP_SERVER", address}});
  EXPECT_EQ(result.exit_code, 6);
  EXPECT_EQ(
      result.error,
      "error: cannot reach a coordinator at " + address +
          ": connection refused\nhint: start a coordinator with 'lasp-server --data_dir DIR', "
          "or name another with --server or LASP_SERVER\n");
  EXPECT_LT(absl::Now() - begin, absl::Seconds(15));
  const ProcessResult version = RunLasp({"version", "-s", address});
  EXPECT_EQ(version.exit_code, 6);
  EXPECT_THAT(version.out, StartsWith("client "));
  EXPECT_EQ(RunLasp({"list"}, {{"LASP_SERVER", "http://x"}}).exit_code, 2);
}

}  // namespace
}  // namespace lasp::client
