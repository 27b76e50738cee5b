// What a person at a terminal sees, through a pseudo-terminal.
#include "client/terminal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/utf8.h"
#include "tests/client/fake_server.h"
#include "tests/client/lasp_process.h"
#include "tests/support/temp_directory.h"

namespace lasp::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class TerminalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int terminal = -1;
    int program = -1;
    if (openpty(&terminal, &program, nullptr, nullptr, nullptr) != 0) {
      GTEST_SKIP() << "no pseudo-terminals here: is devpts mounted on /dev/pts?";
    }
    close(terminal);
    close(program);
  }

  Environment Variables(Environment more = {}) {
    more["LASP_SERVER"] = server_.address();
    more.emplace("TERM", "xterm");
    return more;
  }

  std::string JobFile() { return directory_.Write("job.yaml", "spec: {max_steps: 100}\n"); }

  FakeServer server_;
  lasp::testing::TempDirectory directory_;
};

TEST_F(TerminalTest, CtrlCDetachesAndTheJobGoesOn) {
  server_.OnWatch([](FakeServer* server) { server->PutJob(RunningJob("job-abc123", 24)); });
  TerminalProcess lasp({"submit", "-f", JobFile(), "--wait"}, Variables(), 100);
  ASSERT_TRUE(lasp.WaitFor("step 24/100 24% | loss 2.713")) << lasp.output();
  lasp.Type("\x03");
  EXPECT_EQ(lasp.Wait(), 130) << lasp.output();
  EXPECT_THAT(lasp.output(),
              HasSubstr("detached: the job goes on; attach again with: lasp watch job-abc123"));
  EXPECT_THAT(lasp.output(), HasSubstr("lasp cancel job-abc123"));
  EXPECT_EQ(server_.last_request_id(), "");  // nothing was cancelled
}

TEST_F(TerminalTest, CtrlCEndsOtherCommandsAtOnce) {
  server_.PutJob(RunningJob("quickstart", 5));
  TerminalProcess watch({"watch"}, Variables(), 100);
  ASSERT_TRUE(watch.WaitFor("quickstart"));
  watch.Type("\x03");
  EXPECT_EQ(watch.Wait(), 130);
  TerminalProcess suspend({"suspend", "quickstart"}, Variables(), 100);
  ASSERT_TRUE(suspend.WaitFor("[y/N]"));
  suspend.Type("\x03");
  EXPECT_EQ(suspend.Wait(), 130);
}

TEST_F(TerminalTest, CtrlCBeforeAStreamIsNotForgotten) {
  server_.PutJob(RunningJob("quickstart", 5));
  absl::Notification asked;
  absl::Notification typed;
  server_.OnListEvents([&] {
    asked.Notify();
    typed.WaitForNotificationWithTimeout(absl::Minutes(1));
  });
  TerminalProcess events({"events", "quickstart", "--watch"}, Variables(), 100);
  ASSERT_TRUE(asked.WaitForNotificationWithTimeout(absl::Minutes(1)));
  events.Type("\x03");
  absl::SleepFor(absl::Milliseconds(200));  // it gives no sign of having taken it
  typed.Notify();
  EXPECT_EQ(events.Wait(), 130) << events.output();
}

TEST_F(TerminalTest, AConnectionThatIsGoneDetachesToo) {
  for (const int number : {SIGTERM, SIGHUP}) {
    signal(number, SIG_DFL);  // the test itself may run under nohup
    TerminalProcess lasp({"submit", "-f", JobFile(), "--wait", "--id", absl::StrCat("j", number)},
                         Variables(), 100);
    ASSERT_TRUE(lasp.WaitFor("created")) << lasp.output();
    ASSERT_TRUE(lasp.WaitFor("QUEUED")) << lasp.output();
    lasp.Signal(number);
    EXPECT_EQ(lasp.Wait(), 128 + number) << lasp.output();
    EXPECT_THAT(lasp.output(), HasSubstr("detached: the job goes on"));
  }
}

TEST_F(TerminalTest, ProgressIsOneLineRedrawn) {
  server_.OnWatch([](FakeServer* server) {
    server->PutJob(RunningJob("job-abc123", 24));
    server->PutJob(RunningJob("job-abc123", 25));
  });
  TerminalProcess lasp({"submit", "-f", JobFile(), "--wait"}, Variables({{"LANG", "C.UTF-8"}}), 90);
  ASSERT_TRUE(lasp.WaitFor("step 25/100")) << lasp.output();
  server_.PutJob(SucceededJob("job-abc123"));
  EXPECT_EQ(lasp.Wait(), 0);
  EXPECT_THAT(lasp.output(), HasSubstr("\xE2\x96\x88"));  // the bar
  EXPECT_THAT(lasp.output(), HasSubstr("\r\x1b[K"));
  // The last thing is a whole line, not a torn one.
  EXPECT_EQ(lasp.output().substr(lasp.output().size() - 2), "\r\n");
}

TEST_F(TerminalTest, WithoutUtf8TheBarIsAscii) {
  server_.OnWatch([](FakeServer* server) { server->PutJob(RunningJob("job-abc123", 24)); });
  TerminalProcess lasp({"submit", "-f", JobFile(), "--wait"}, Variables({{"LANG", "C"}}), 90);
  ASSERT_TRUE(lasp.WaitFor("###-------------")) << lasp.output();
  server_.PutJob(SucceededJob("job-abc123"));
  EXPECT_EQ(lasp.Wait(), 0);
}

TEST_F(TerminalTest, QuietShowsNoProgress) {
  server_.OnWatch([](FakeServer* server) { server->PutJob(SucceededJob("job-abc123")); });
  TerminalProcess lasp({"submit", "-f", JobFile(), "--wait", "-q"}, Variables(), 90);
  EXPECT_EQ(lasp.Wait(), 0);
  EXPECT_EQ(lasp.output(), "job/job-abc123 created\r\n");
}

TEST_F(TerminalTest, ColoursFollowTheEnvironmentAndTheFlag) {
  server_.PutJob(FailedJob("quickstart"));
  const auto output = [&](const Environment& more, const std::vector<std::string>& arguments) {
    TerminalProcess lasp(arguments, Variables(more), 100);
    EXPECT_EQ(lasp.Wait(), 0);
    return lasp.output();
  };
  EXPECT_THAT(output({}, {"list"}), HasSubstr("\x1b[31mFAILED"));
  EXPECT_THAT(output({{"NO_COLOR", "1"}}, {"list"}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(output({{"NO_COLOR", ""}}, {"list"}), HasSubstr("\x1b"));
  EXPECT_THAT(output({{"TERM", "dumb"}}, {"list"}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(output({{"CLICOLOR", "0"}}, {"list"}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(output({}, {"list", "--color=never"}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(output({{"NO_COLOR", "1"}}, {"list", "--color", "always"}), HasSubstr("\x1b"));
  const auto piped = [&](const Environment& more) {
    return RunLasp({"list"}, Variables(more)).out;
  };
  EXPECT_THAT(piped({}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(piped({{"CLICOLOR_FORCE", "1"}}), HasSubstr("\x1b"));
  EXPECT_THAT(piped({{"CLICOLOR_FORCE", "0"}}), Not(HasSubstr("\x1b")));
}

TEST_F(TerminalTest, TablesAreCutToTheWindowAndWholeInAPipe) {
  const std::string name(60, 'x');
  server_.PutJob(RunningJob(name, 5));
  TerminalProcess lasp({"list", "--color=never"}, Variables(), 60);
  EXPECT_EQ(lasp.Wait(), 0);
  EXPECT_THAT(lasp.output(), AllOf(HasSubstr("xxx..."), Not(HasSubstr(name))));
  size_t longest = 0;
  size_t start = 0;
  for (size_t end; (end = lasp.output().find("\r\n", start)) != std::string::npos;
       start = end + 2) {
    longest = std::max(longest, end - start);
  }
  EXPECT_LE(longest, 60U);
  EXPECT_THAT(RunLasp({"list"}, Variables()).out, HasSubstr(name));
}

TEST_F(TerminalTest, WhatRanksWriteCannotSteerTheTerminal) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::LogLine> lines(1);
  lines[0].set_text(
      "a\x1b]0;title\x07\x1b[2J"
      "b");
  server_.SetLogLines(lines);
  TerminalProcess lasp({"logs", "quickstart"}, Variables(), 100);
  EXPECT_EQ(lasp.Wait(), 0);
  EXPECT_EQ(lasp.output(), "[rank 0] a]0;title[2Jb\r\n");
}

TEST_F(TerminalTest, WhatRanksLogIsMadeReadable) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::LogLine> lines(1);
  lines[0].set_text(
      R"({"ts":"2026-11-21T21:18:04.112455Z","level":"info","component":"lasp-rank","msg":"ready",)"
      R"("rank":"0","world_size":"4","odd":"\u001b[2J","n":3,"source":"rank.cc:89"})");
  server_.SetLogLines(lines);
  TerminalProcess lasp({"logs", "quickstart", "--rank=0"}, Variables({{"TZ", "UTC"}}), 100);
  EXPECT_EQ(lasp.Wait(), 0);
  EXPECT_EQ(lasp.output(), "21:18:04 info ready world_size=4 odd=[2J n=3\r\n");
  EXPECT_EQ(RunLasp({"logs", "quickstart", "--rank=0"}, Variables()).out, lines[0].text() + "\n");
}

TEST_F(TerminalTest, AWatchedPlotIsDrawnAnewUntilTheEnd) {
  server_.PutJob(RunningJob("quickstart", 5));
  std::vector<lasp::v1::StepMetrics> steps(5);
  for (int i = 0; i < 5; ++i) {
    steps[static_cast<size_t>(i)].set_step(i + 1);
    steps[static_cast<size_t>(i)].set_generation(1);
    steps[static_cast<size_t>(i)].set_loss(6.0 - i);
  }
  server_.SetSteps(steps);
  TerminalProcess plot({"plot", "quickstart", "--watch"}, Variables({{"LANG", "C.UTF-8"}}), 60);
  EXPECT_EQ(plot.Wait(), 0) << plot.output();
  EXPECT_THAT(plot.output(), HasSubstr("\x1b[H\x1b[Jloss of job/quickstart, RUNNING, step 5/100"));
  EXPECT_THAT(plot.output(), HasSubstr("last 2 at step 5"));
  for (const absl::string_view line : absl::StrSplit(plot.output(), "\r\n")) {
    EXPECT_LE(DisplayWidth(Printable(line)), 60 + 6) << line;  // 6: of the escapes
  }
}

TEST_F(TerminalTest, SuspendAsks) {
  server_.PutJob(RunningJob("quickstart", 5));
  {
    TerminalProcess lasp({"suspend", "quickstart"}, Variables(), 100);
    ASSERT_TRUE(lasp.WaitFor("Suspend it? [y/N] ")) << lasp.output();
    EXPECT_THAT(lasp.output(), HasSubstr("will start again from step 1"));
    lasp.Type("\r");
    EXPECT_EQ(lasp.Wait(), 1);
    EXPECT_EQ(server_.last_request_id(), "");
  }
  TerminalProcess lasp({"suspend", "quickstart"}, Variables(), 100);
  ASSERT_TRUE(lasp.WaitFor("[y/N] "));
  lasp.Type("yes\r");
  EXPECT_EQ(lasp.Wait(), 0) << lasp.output();
  EXPECT_THAT(lasp.output(), HasSubstr("job/quickstart SUSPENDED"));
}

}  // namespace
}  // namespace lasp::client
