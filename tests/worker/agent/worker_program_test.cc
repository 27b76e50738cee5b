// lasp-worker with jobs: what it does while its coordinator and its ranks come and go.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/spec/unique_fd.h"
#include "tests/worker/agent/rank_orders.h"
#include "tests/worker/agent/worker_program_fixture.h"
#include "worker/agent/rank_ledger.h"

namespace lasp::worker {
namespace {

using testing::FakeCoordinator;
using testing::FenceOf;
using ::testing::HasSubstr;
using testing::RanksNamed;
using testing::Spec;
using testing::StopOf;
using testing::WaitForRanks;
using testing::WorkerProcess;

using WorkerProgramTest = testing::WorkerProgramFixture;

// A process that only a signal ends.
pid_t StartSleeper() {
  const pid_t pid = fork();
  if (pid == 0) {
    for (;;) {
      pause();
    }
  }
  return pid;
}

TEST_F(WorkerProgramTest, RunsAWholeJob) {
  StartWorker();
  EXPECT_EQ(serving_["worker_id"], "w1");
  EXPECT_EQ(coordinator_.last_hello.slots_size(), 4);
  coordinator_.Submit("job", 1, 3, Spec(50));
  ASSERT_TRUE(WaitForExits(3));
  for (const auto& [rank, exited] : coordinator_.exits) {
    EXPECT_EQ(exited.exit_code(), 0) << exited.DebugString();
    EXPECT_EQ(exited.status().code(), 0);
    EXPECT_EQ(exited.step(), 50);
    EXPECT_EQ(exited.slot(), rank);
  }
  ExpectSteps(1, 50);
  EXPECT_EQ(coordinator_.repeated_steps, 0);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(coordinator_.WaitFor([&] {
      return absl::StrContains(coordinator_.logs[{1, rank}].text,
                               absl::StrCat("Z rank ", rank, " ends after step 50\n"));
    }));
  }
}

TEST_F(WorkerProgramTest, TellsADeadRankWithinASecond) {
  StartWorker();
  coordinator_.Submit("job", 1, 2, Spec(100'000, {"rank=1", "die_at=20", "step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.steps[1].empty(); }));
  ASSERT_TRUE(WaitForExits(1));
  const lasp::v1::RankExited& exited = coordinator_.exits.at(1);
  EXPECT_EQ(exited.exit_code(), 128 + SIGKILL);
  EXPECT_EQ(exited.status().message(), "rank 1 was killed by signal 9 (Killed)");
  EXPECT_EQ(exited.step(), 20);

  // From outside, with the clock running.
  const std::vector<pid_t> left = RanksNamed(rank_name_);
  ASSERT_EQ(left.size(), 1U);
  const absl::Time killed_at = absl::Now();
  kill(left[0], SIGKILL);
  ASSERT_TRUE(WaitForExits(2));
  EXPECT_LT(absl::Now() - killed_at, absl::Seconds(1));
}

TEST_F(WorkerProgramTest, KilledAgentLeavesNoRank) {
  StartWorker();
  // One of the ranks reads nothing any more and has a child.
  coordinator_.Submit("job", 1, 4,
                      Spec(1'000'000, {"step_ms=1", "rank=2", "hang_at=5", "child=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 20; }));
  ASSERT_EQ(RanksNamed(rank_name_).size(), 5U);
  worker_->Signal(SIGKILL);
  EXPECT_EQ(worker_->Wait(absl::Seconds(5)), 128 + SIGKILL);
  // Without the child of a rank: only an agent could end that one.
  EXPECT_TRUE(WaitForRanks(rank_name_, 1, absl::Seconds(1)));
  for (const pid_t pid : RanksNamed(rank_name_)) {
    kill(pid, SIGKILL);
  }
}

TEST_F(WorkerProgramTest, KillsWhatAnEarlierAgentLeft) {
  StartWorker();
  worker_->Signal(SIGTERM);
  ASSERT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  // A process that no death signal ends, recorded as the agent records its ranks; and a record
  // whose number another process has by now.
  const RankLedger ledger(folder_.Join("work/ranks"));
  const pid_t leftover = StartSleeper();
  ASSERT_TRUE(ledger.Record(leftover).ok());
  const pid_t stranger = StartSleeper();
  folder_.Write(absl::StrCat("work/ranks/", stranger), absl::StrCat(stranger, " 1 some-boot\n"));

  StartWorker();
  EXPECT_EQ(kill(leftover, 0), 0) << "a zombie until it is waited for";
  int status = 0;
  EXPECT_EQ(waitpid(leftover, &status, WNOHANG), leftover);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(waitpid(stranger, &status, WNOHANG), 0);
  kill(stranger, SIGKILL);
  waitpid(stranger, &status, 0);
}

TEST_F(WorkerProgramTest, LosesNoStepWhileTheCoordinatorIsAway) {
  StartWorker();
  coordinator_.Submit("job", 1, 2, Spec(1500, {"step_ms=1", "save_at=1400"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 50; }));
  coordinator_.StopServing();
  // The job goes on, and ends.
  ASSERT_TRUE(WaitForRanks(rank_name_, 0, absl::Seconds(20)));
  ASSERT_TRUE(coordinator_.exits.empty());
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(2));
  ExpectSteps(1, 1500);
  // Nor that a checkpoint was written.
  ASSERT_EQ(coordinator_.shards.size(), 2U);
  EXPECT_EQ(coordinator_.shards[1].step(), 1400);
  EXPECT_EQ(coordinator_.connections, 2);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 0);
  EXPECT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 ends after step 1500\n");
  }));
}

TEST_F(WorkerProgramTest, SaysAgainWhatACrashedCoordinatorHasNotAcknowledged) {
  coordinator_.acknowledging = false;
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1800, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 50; }));
  coordinator_.StopServing();
  coordinator_.acknowledging = true;
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(1));
  ExpectSteps(1, 1800);
  EXPECT_GT(coordinator_.repeated_steps, 0);
  // The one that still ran was named.
  EXPECT_EQ(coordinator_.connections, 2);
}

TEST_F(WorkerProgramTest, AdoptedRanksMeetAfterAReconnect) {
  StartWorker();
  // Assigned, and the coordinator is gone before it has taken where the ranks listen.
  coordinator_.taking_addresses = false;
  coordinator_.Submit("job", 1, 3, Spec(30));
  ASSERT_TRUE(WaitForRanks(rank_name_, 3, absl::Seconds(20)));
  coordinator_.StopServing();
  coordinator_.taking_addresses = true;
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(3));
  ExpectSteps(1, 30);
}

TEST_F(WorkerProgramTest, DrainsOnSigterm) {
  StartWorker();
  coordinator_.Submit("job", 1, 3, Spec(1'000'000, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(10)), 0);
  ASSERT_TRUE(WaitForExits(3));
  EXPECT_TRUE(coordinator_.draining);
  for (const auto& [rank, exited] : coordinator_.exits) {
    EXPECT_EQ(exited.exit_code(), kRankDrained);
  }
  // All that rank 0 has done is known.
  ExpectSteps(1, coordinator_.exits.at(0).step());
  EXPECT_TRUE(absl::StrContains(coordinator_.logs[{1, 2}].text, "rank 2 ends after step"));
}

TEST_F(WorkerProgramTest, WhatItDrainsWhileTheCoordinatorIsAwayIsStillToldOf) {
  StartWorker();
  coordinator_.Submit("job", 1, 2, Spec(1'000'000, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  coordinator_.StopServing();
  worker_->Signal(SIGTERM);
  ASSERT_TRUE(WaitForRanks(rank_name_, 0, absl::Seconds(10)));
  EXPECT_EQ(worker_->Wait(absl::Seconds(1)), -1);
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(2));
  EXPECT_EQ(worker_->Wait(absl::Seconds(10)), 0);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), kRankDrained);
  ExpectSteps(1, coordinator_.exits.at(0).step());
}

TEST_F(WorkerProgramTest, ASecondSignalDoesNotWaitForACoordinatorThatIsAway) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  coordinator_.StopServing();
  worker_->Signal(SIGTERM);
  ASSERT_TRUE(WaitForRanks(rank_name_, 0, absl::Seconds(10)));
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(3)), 0);
}

// A port that takes connections and says nothing: the transport would wait for long.
TEST_F(WorkerProgramTest, DrainsAtOnceWhileItConnects) {
  const UniqueFd mute(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(mute.valid());
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(mute.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(mute.get(), 16), 0);
  ASSERT_EQ(getsockname(mute.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  WorkerProcess worker(Arguments({absl::StrCat("--server=127.0.0.1:", ntohs(address.sin_port))}));
  ASSERT_FALSE(worker.ReadServingLine().empty());
  // It has dialed.
  pollfd dialed = {.fd = mute.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&dialed, 1, 10'000), 1);
  const absl::Time start = absl::Now();
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(absl::Seconds(20)), 0);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(WorkerProgramTest, TakesNoRankWhileItDrains) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "ignore_drain=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGINT);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.draining; }));
  coordinator_.Submit("other", 1, 2, Spec(10));
  ASSERT_TRUE(WaitForExits(2));
  EXPECT_EQ(coordinator_.exits.at(1).exit_code(), kRankDrained);
  EXPECT_THAT(coordinator_.exits.at(1).status().message(), HasSubstr("drains"));
  // The second signal kills what does not leave.
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(10)), 0);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 128 + SIGKILL);
}

TEST_F(WorkerProgramTest, KillsAtTheEndOfTheDrainTimeout) {
  StartWorker({"--drain_timeout=300ms"});
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "ignore_drain=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 128 + SIGKILL);
  EXPECT_THAT(coordinator_.exits.at(0).status().message(), HasSubstr("did not drain within 300ms"));
}

// AddressSanitizer slows who writes the flood and who reads it: an eighth of it lasts as long.
#ifdef __SANITIZE_ADDRESS__
constexpr int kFloodLines = 40'000;
#else
constexpr int kFloodLines = 320'000;
#endif

TEST_F(WorkerProgramTest, NeitherHeartbeatsNorStepsWaitForAFloodOfLogs) {
  StartWorker({"--log_file_bytes=1048576", "--log_files=2", "--log_ship_bytes_per_second=2097152"});
  // 64 MB of log from each of two ranks.
  coordinator_.Submit(
      "job", 1, 2, Spec(20, {absl::StrCat("lines=", kFloodLines), "line_bytes=180", "step_ms=1"}));
  const int64_t before = coordinator_.heartbeats;
  const absl::Time start = absl::Now();
  ASSERT_TRUE(WaitForExits(2));
  const absl::Duration took = absl::Now() - start;
  RecordProperty("flood_seconds", absl::StrCat(absl::ToDoubleSeconds(took)));
  EXPECT_LT(took, absl::Seconds(20));
  EXPECT_GE(coordinator_.heartbeats - before, took / absl::Milliseconds(400) - 2);
  ExpectSteps(1, 20);
  // What was rotated away before it was sent is named, and the end arrives.
  ASSERT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 ends after step 20\n");
  }));
  const FakeCoordinator::RankLogText& log = coordinator_.logs.begin()->second;
  EXPECT_GT(log.gap_bytes, 0);
  EXPECT_THAT(log.text, HasSubstr(" bytes of this log were dropped]\n"));
}

TEST_F(WorkerProgramTest, NoHeartbeatWaitsForADiskThatHangs) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 of 1 begins\n") &&
           !coordinator_.steps[1].empty();
  }));
  // Whoever opens the log now waits, and the rank's last line is still to be read.
  const std::string log = folder_.Join(
      absl::StrCat("work/logs/job-uid-job.gen-1.rank-0/", std::string(20, '0'), ".log"));
  ASSERT_EQ(unlink(log.c_str()), 0);
  ASSERT_EQ(mkfifo(log.c_str(), 0600), 0);
  lasp::v1::ConnectResponse order;
  *order.mutable_stop() = StopOf(FenceOf("job", 1, 0), lasp::v1::Stop::MODE_DRAIN);
  coordinator_.Send(order);
  ASSERT_TRUE(WaitForExits(1));
  absl::SleepFor(absl::Milliseconds(500));
  int64_t before = 0;
  coordinator_.WaitFor([&] {
    before = coordinator_.heartbeats;
    return true;
  });
  EXPECT_TRUE(coordinator_.WaitFor([&] { return coordinator_.heartbeats >= before + 5; }));
  // Opens for writing only where somebody reads, and ends that one's wait.
  const UniqueFd writer(open(log.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  EXPECT_TRUE(writer.valid()) << "nobody has read the log";
}

TEST_F(WorkerProgramTest, ShipsTheLogOfARankAfterAnAgentWasKilled) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "lines=100"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 1; }));
  coordinator_.StopServing();
  coordinator_.logs.clear();
  worker_->Signal(SIGKILL);
  worker_->Wait(absl::Seconds(5));
  coordinator_.Serve();
  StartWorker();
  EXPECT_TRUE(coordinator_.WaitFor(
      [&] { return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 of 1 begins\n"); }));
}

}  // namespace
}  // namespace lasp::worker
