// Real rank processes, driven as an agent drives them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/spec/unique_fd.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/fake_agent.h"
#include "tests/worker/engine/small_spec.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;

class RankProcessTest : public ::testing::Test {
 protected:
  RankProcessTest() { folder_.Write("corpus.txt", MakeText(200'000, 5)); }

  FakeAgent::Options Options(int sp_size, int dp_size, int64_t max_steps) {
    FakeAgent::Options options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.spec.set_max_steps(max_steps);
    options.path_roots = {folder_.path()};
    return options;
  }

  // A job that outlasts any test.
  static constexpr int64_t kEndless = 1'000'000;

  TempDirectory folder_;
};

TEST_F(RankProcessTest, TrainsToTheEndAndReportsEveryStep) {
  FakeAgent agent(Options(2, 2, 8));
  ASSERT_TRUE(agent.Begin());
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankDone);
    const RankRecord record = agent.record(rank);
    ASSERT_EQ(record.steps.size(), 8u);
    for (int64_t step = 1; step <= 8; ++step) {
      EXPECT_EQ(record.steps[static_cast<size_t>(step - 1)].step(), step);
    }
    EXPECT_EQ(record.steps[0].has_metrics(), rank == 0);
    ASSERT_TRUE(record.finished);
    EXPECT_EQ(record.end.status().code(), 0);
    EXPECT_EQ(record.end.step(), 8);
  }
  const lasp::v1::StepMetrics last = agent.record(0).steps.back().metrics();
  EXPECT_LT(last.loss(), agent.record(0).steps.front().metrics().loss());
  EXPECT_EQ(last.generation(), 1);
  EXPECT_GT(last.tokens_per_second(), 0);
  EXPECT_TRUE(last.has_time());
}

TEST_F(RankProcessTest, ARankWhoseAgentIsGoneEndsAtOnce) {
  FakeAgent agent(Options(2, 1, kEndless));
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 2));
  const absl::Duration begin = SystemClock().Monotonic();
  agent.CloseChannel(0);
  EXPECT_EQ(agent.WaitForExit(0), kRankRetry);
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(1));
  // Its peer notices inside its collective operation.
  EXPECT_EQ(agent.WaitForExit(1), kRankRetry);
  EXPECT_NE(agent.record(1).end.status().message().find("rank 0"), std::string::npos);
}

TEST_F(RankProcessTest, ARankThatIsKilledMakesThePeersAskForAnotherAttempt) {
  FakeAgent agent(Options(2, 2, kEndless));
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 2));
  ::kill(agent.pid(3), SIGKILL);
  EXPECT_EQ(agent.WaitForExit(3), 128 + SIGKILL);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankRetry);
    EXPECT_TRUE(agent.record(rank).finished);
    // Rank 0 had finished step 2; another may have been cut off while it did.
    EXPECT_GE(agent.record(rank).end.step(), 1);
  }
}

TEST_F(RankProcessTest, ADrainTakesAllRanksAfterOneStep) {
  for (const bool by_signal : {false, true}) {
    FakeAgent agent(Options(2, 2, kEndless));
    ASSERT_TRUE(agent.Begin());
    ASSERT_TRUE(agent.WaitForStep(0, 2));
    if (by_signal) {
      ::kill(agent.pid(1), SIGTERM);
    } else {
      agent.Drain(1);
    }
    EXPECT_EQ(agent.WaitForExit(0), kRankDrained);
    const int64_t last = agent.record(0).end.step();
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(agent.WaitForExit(rank), kRankDrained);
      EXPECT_EQ(agent.record(rank).end.step(), last);
      EXPECT_EQ(agent.record(rank).steps.back().step(), last);
    }
  }
}

TEST_F(RankProcessTest, ADrainBeforeTheStartEndsTheWait) {
  FakeAgent agent(Options(2, 1, kEndless));
  ASSERT_TRUE(agent.WaitForAddresses());
  agent.Drain(0);
  agent.Drain(1);
  EXPECT_EQ(agent.WaitForExit(0), kRankDrained);
  EXPECT_EQ(agent.WaitForExit(1), kRankDrained);
}

TEST_F(RankProcessTest, ADrainEndsTheWaitForAPeerThatDoesNotConnect) {
  FakeAgent agent(Options(2, 1, kEndless));
  ASSERT_TRUE(agent.WaitForAddresses());
  // Its system still takes connections.
  ::kill(agent.pid(1), SIGSTOP);
  agent.SendAddresses();
  const absl::Duration begin = SystemClock().Monotonic();
  agent.Drain(0);
  EXPECT_EQ(agent.WaitForExit(0), kRankDrained);
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(5));
}

TEST_F(RankProcessTest, AMissingCorpusIsAWrongConfigurationAndNamed) {
  FakeAgent::Options options = Options(1, 1, 2);
  options.spec.mutable_data()->set_train_paths(0, "missing.txt");
  FakeAgent agent(options);
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  EXPECT_NE(agent.record(0).end.status().message().find("missing.txt"), std::string::npos);
}

// The rank itself opens its data, beneath the roots of its own agent: what the coordinator found
// sound does not count.
TEST_F(RankProcessTest, DataBeyondTheAgentsRootsIsNotOpened) {
  TempDirectory other;
  other.Write("secret.txt", MakeText(200'000, 6));
  std::filesystem::create_symlink(other.Join("secret.txt"), folder_.Join("link.txt"));
  ASSERT_EQ(mkfifo(folder_.Join("fifo.txt").c_str(), 0600), 0);
  for (const std::string& path :
       {other.Join("secret.txt"), std::string("link.txt"), std::string("fifo.txt"),
        "../" + std::filesystem::path(other.path()).filename().string() + "/secret.txt",
        "/proc/self/root" + other.Join("secret.txt")}) {
    FakeAgent::Options options = Options(1, 1, 2);
    options.spec.mutable_data()->set_train_paths(0, path);
    FakeAgent agent(options);
    EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration) << path;
    EXPECT_NE(agent.record(0).end.status().message().find(path), std::string::npos)
        << agent.record(0).end.status().message();
    EXPECT_TRUE(agent.record(0).address.empty());
  }
  FakeAgent::Options options = Options(1, 1, 2);
  options.path_roots.clear();
  FakeAgent agent(options);
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  EXPECT_NE(agent.record(0).end.status().message().find("--path_roots"), std::string::npos);
}

TEST_F(RankProcessTest, ALinkSwappedUnderARunningRankChangesNothing) {
  std::filesystem::create_symlink("corpus.txt", folder_.Join("link.txt"));
  FakeAgent::Options options = Options(1, 1, kEndless);
  options.spec.mutable_data()->set_train_paths(0, "link.txt");
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 2));
  std::filesystem::create_symlink("/etc/passwd", folder_.Join("other"));
  std::filesystem::rename(folder_.Join("other"), folder_.Join("link.txt"));
  const int64_t swapped_at = agent.record(0).steps.back().step();
  // Beyond what the prefetcher had read.
  EXPECT_TRUE(agent.WaitForStep(0, swapped_at + 30));
}

// What /proc shows of a process belongs to its user, or to root where it is nobody else's to see.
TEST_F(RankProcessTest, OtherProcessesSeeNothingOfARank) {
  constexpr uid_t kNobody = 65'534;
  const std::string program = PathOf("lasp-rank");
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd own_end(ends[0]);
  UniqueFd rank_end(ends[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::dup2(rank_end.get(), kRankChannelDescriptor) == kRankChannelDescriptor &&
        (::geteuid() != 0 || ::setuid(kNobody) == 0)) {
      ::execl(program.c_str(), program.c_str(), nullptr);
    }
    ::_exit(127);
  }
  rank_end = UniqueFd();
  const auto read_status = [pid] {
    std::ifstream file("/proc/" + std::to_string(pid) + "/status");
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  struct stat owner = {};
  bool is_private = false;
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(20);
  while (!is_private && SystemClock().Monotonic() < deadline &&
         ::waitpid(pid, nullptr, WNOHANG) == 0) {
    // Before it is the rank it is this test's copy.
    is_private = read_status().find("Name:\tlasp-rank\n") != std::string::npos &&
                 ::stat(("/proc/" + std::to_string(pid) + "/environ").c_str(), &owner) == 0 &&
                 owner.st_uid == 0;
    absl::SleepFor(absl::Milliseconds(5));
  }
  const std::string status = read_status();
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  if (status.empty()) {
    GTEST_SKIP() << "another user cannot start " << program;
  }
  EXPECT_TRUE(is_private) << status << owner.st_uid;
}

// A job may outlive the folder that it began with.
TEST_F(RankProcessTest, WhatIsRebuiltNeedsNoInitialWeights) {
  const TempDirectory memory;
  FakeAgent::Options options = Options(2, 1, kEndless);
  options.memory_root = memory.path();
  lasp::internal::v1::RankFinished end;
  {
    FakeAgent agent(options);
    ASSERT_TRUE(agent.Begin());
    ASSERT_TRUE(agent.WaitForStep(0, 2));
    ::kill(agent.pid(1), SIGKILL);
    EXPECT_EQ(agent.WaitForExit(0), kRankRetry);
    end = agent.record(0).end;
  }
  ASSERT_TRUE(end.has_state_left());
  lasp::v1::Rebuild rebuild;
  rebuild.set_generation(1);
  *rebuild.mutable_state() = end.state_left().state();
  lasp::v1::RebuildPart& part = *rebuild.add_parts();
  *part.mutable_pieces() = end.state_left().pieces();
  *part.mutable_shard() = end.state_left().shard();
  options.rebuild = rebuild;
  options.generation = 2;
  options.spec.mutable_model()->mutable_initial_weights()->set_path("deleted");
  options.spec.set_max_steps(rebuild.state().step() + 2);
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin()) << agent.record(0).end.status().message();
  EXPECT_EQ(agent.WaitForExit(0), kRankDone);
  EXPECT_EQ(agent.record(0).steps.size(), 2u);
}

TEST_F(RankProcessTest, AMethodOfAnotherBuildIsAWrongConfiguration) {
  FakeAgent::Options options = Options(1, 1, 2);
  options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_method(
      static_cast<lasp::v1::SequenceParallelSpec::Method>(99));
  FakeAgent agent(options);
  ASSERT_TRUE(agent.WaitForAddresses());
  agent.SendAddresses();
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  EXPECT_NE(agent.record(0).end.status().message().find("is not in this build"), std::string::npos);
}

}  // namespace
}  // namespace lasp::worker
