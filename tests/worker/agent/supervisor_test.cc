// The supervisor with real processes as ranks.
#include "worker/agent/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/left_state_folder.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/worker/agent/rank_orders.h"
#include "tests/worker/agent/supervisor_fixture.h"

namespace lasp::worker {

// Reaches into the supervisor to do what its own code never does.
class SupervisorTestPeer {
 public:
  // Reads what belongs to the supervisor's thread.
  static size_t ReadRanksWithoutRight(const Supervisor& supervisor) {
    return supervisor.ranks_.size();
  }
};

namespace {

using lasp::v1::RankExited;
using lasp::v1::RankStatus;
using testing::Alone;
using testing::FenceOf;
using ::testing::HasSubstr;
using testing::Options;
using testing::StopOf;

class SupervisorTest : public testing::SupervisorFixture {};

TEST_F(SupervisorTest, RunsARankToItsEnd) {
  supervisor_->Launch(Alone("a", 1, 2, 20));
  const RankExited exited = recorder_.WaitForEnds(1)[0];
  EXPECT_EQ(exited.exit_code(), kRankDone);
  EXPECT_EQ(exited.status().code(), 0);
  EXPECT_EQ(exited.step(), 20);
  EXPECT_EQ(exited.slot(), 2);
  EXPECT_TRUE(supervisor_->WaitUntilEmpty(absl::Seconds(5)));
  supervisor_.reset();
  // Nothing is left to be killed by a later agent.
  EXPECT_TRUE(std::filesystem::is_empty(folder_.Join("ranks")));
}

TEST_F(SupervisorTest, SaysHowARankEnded) {
  SupervisorOptions options = Options();
  options.leave_time = absl::Milliseconds(300);
  Restart(options);
  supervisor_->Launch(Alone("killed", 1, 0, 100, {"die_at=5"}));
  supervisor_->Launch(Alone("mute", 1, 1, 100, {"exit_at=3"}));
  supervisor_->Launch(Alone("lingers", 1, 2, 4, {"linger=1"}));
  std::map<std::string, RankExited> ended;
  for (const RankExited& exited : recorder_.WaitForEnds(3)) {
    ended[exited.fence().uid()] = exited;
  }
  EXPECT_EQ(ended["uid-killed"].exit_code(), 128 + SIGKILL);
  EXPECT_EQ(ended["uid-killed"].status().message(), "rank 0 was killed by signal 9 (Killed)");
  EXPECT_EQ(ended["uid-killed"].step(), 5);
  EXPECT_EQ(ended["uid-mute"].exit_code(), 1);
  EXPECT_THAT(ended["uid-mute"].status().message(), HasSubstr("ended with exit code 1"));
  // It had said OK before the agent lost patience.
  EXPECT_EQ(ended["uid-lingers"].exit_code(), 128 + SIGKILL);
  EXPECT_EQ(ended["uid-lingers"].status().code(), 0);
}

TEST_F(SupervisorTest, StartsNoRankTwice) {
  const auto assignment = Alone("a", 1, 0, 50, {"step_ms=1"});
  supervisor_->Launch(assignment);
  supervisor_->Launch(assignment);
  recorder_.WaitForEnds(1);
  EXPECT_EQ(recorder_.started().size(), 1U);
  // Its end is told again.
  supervisor_->Launch(assignment);
  const auto ended = recorder_.WaitForEnds(2);
  EXPECT_EQ(ended[0].SerializeAsString(), ended[1].SerializeAsString());
  EXPECT_EQ(recorder_.started().size(), 1U);
}

TEST_F(SupervisorTest, NewerGenerationTakesTheSlotAndEndsTheOlder) {
  supervisor_->Launch(Alone("a", 1, 0, 1'000'000, {"step_ms=1", "ignore_drain=1"}));
  recorder_.WaitForStep(3);
  supervisor_->Launch(Alone("a", 2, 0, 10));
  const auto ended = recorder_.WaitForEnds(2);
  EXPECT_EQ(ended[0].fence().generation(), 1);
  EXPECT_THAT(ended[0].status().message(), HasSubstr("superseded"));
  EXPECT_EQ(ended[1].fence().generation(), 2);
  EXPECT_EQ(ended[1].exit_code(), kRankDone);
  // Also where it goes to another slot.
  supervisor_->Launch(Alone("b", 4, 1, 1'000'000, {"step_ms=1"}));
  supervisor_->Launch(Alone("b", 5, 2, 10));
  std::set<int64_t> generations;
  for (const RankExited& exited : recorder_.WaitForEnds(4)) {
    generations.insert(exited.fence().generation());
  }
  EXPECT_EQ(generations, (std::set<int64_t>{1, 2, 4, 5}));
}

TEST_F(SupervisorTest, NamesWhatWaitsForItsSlot) {
  supervisor_->Launch(Alone("a", 1, 0, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForStep(1);
  supervisor_->Launch(Alone("b", 1, 0, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForEnds(1);
  // After the one that is ending in it.
  const std::vector<LiveRank> ranks = recorder_.ranks_at_end();
  ASSERT_EQ(ranks.size(), 2U);
  EXPECT_EQ(ranks[0].status.fence().uid(), "uid-a");
  EXPECT_EQ(ranks[1].status.fence().uid(), "uid-b");
  EXPECT_EQ(ranks[1].status.slot(), 0);
  EXPECT_EQ(ranks[1].status.phase(), RankStatus::PHASE_STARTING);
  ASSERT_TRUE(supervisor_->WaitUntilSettled(absl::Seconds(5)));
}

TEST_F(SupervisorTest, TellsOfWhatLostItsTurnWhileItWaited) {
  supervisor_->Launch(Alone("a", 1, 0, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForStep(1);
  // Faster than a process can end.
  supervisor_->Launch(Alone("b", 1, 0, 10));
  supervisor_->Launch(Alone("c", 1, 0, 10));
  std::map<std::string, RankExited> ended;
  for (const RankExited& exited : recorder_.WaitForEnds(3)) {
    ended[exited.fence().uid()] = exited;
  }
  EXPECT_THAT(ended["uid-b"].status().message(), HasSubstr("superseded by"));
  EXPECT_EQ(ended["uid-c"].exit_code(), kRankDone);
}

TEST_F(SupervisorTest, ADrainDoesNotHideWhyARankWasKilled) {
  supervisor_->Launch(Alone("a", 1, 0, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForStep(1);
  supervisor_->Stop(StopOf(FenceOf("a", 1, 0), lasp::v1::Stop::MODE_KILL));
  supervisor_->DrainAll(absl::Seconds(1));
  EXPECT_THAT(recorder_.WaitForEnds(1)[0].status().message(), HasSubstr("TESTED"));
}

TEST_F(SupervisorTest, OlderGenerationIsRefused) {
  supervisor_->Launch(Alone("a", 7, 0, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForStep(1);
  supervisor_->Launch(Alone("a", 6, 1, 10));
  const RankExited refused = recorder_.WaitForEnds(1)[0];
  EXPECT_EQ(refused.fence().generation(), 6);
  EXPECT_EQ(refused.exit_code(), kRankRetry);
  EXPECT_EQ(supervisor_->Ranks().size(), 1U);
}

TEST_F(SupervisorTest, StopsAsAsked) {
  supervisor_->Launch(Alone("drain", 1, 0, 1'000'000, {"step_ms=1"}));
  supervisor_->Launch(Alone("deaf", 1, 1, 1'000'000, {"step_ms=1", "ignore_drain=1"}));
  supervisor_->Launch(Alone("kill", 1, 2, 1'000'000, {"step_ms=1"}));
  recorder_.WaitForStep(5);
  supervisor_->Stop(StopOf(FenceOf("drain", 1, 0), lasp::v1::Stop::MODE_DRAIN));
  supervisor_->Stop(StopOf(FenceOf("deaf", 1, 0), lasp::v1::Stop::MODE_DRAIN, 200));
  supervisor_->Stop(StopOf(FenceOf("kill", 1, 0), lasp::v1::Stop::MODE_KILL));
  std::map<std::string, RankExited> ended;
  for (const RankExited& exited : recorder_.WaitForEnds(3)) {
    ended[exited.fence().uid()] = exited;
  }
  EXPECT_EQ(ended["uid-drain"].exit_code(), kRankDrained);
  EXPECT_EQ(ended["uid-deaf"].exit_code(), 128 + SIGKILL);
  EXPECT_THAT(ended["uid-deaf"].status().message(), HasSubstr("did not drain within 200ms"));
  EXPECT_EQ(ended["uid-kill"].exit_code(), 128 + SIGKILL);
  EXPECT_THAT(ended["uid-kill"].status().message(), HasSubstr("TESTED"));
}

TEST_F(SupervisorTest, ARankMayLeaveItsStateForTheNextGeneration) {
  SupervisorOptions options = Options();
  options.memory_root = folder_.Join("memory");
  std::filesystem::create_directories(options.memory_root + "/of-an-earlier-agent");
  Restart(options);
  EXPECT_TRUE(std::filesystem::is_empty(options.memory_root));
  // Longer than it has for its first word.
  supervisor_->Launch(Alone("leaves", 1, 0, 1'000'000, {"step_ms=1", "leave_ms=3500"}));
  recorder_.WaitForStep(5);
  lasp::v1::Stop stop = StopOf(FenceOf("leaves", 1, 0), lasp::v1::Stop::MODE_LEAVE_STATE, 60'000);
  supervisor_->Stop(stop);
  supervisor_->Stop(stop);
  const RankExited exited = recorder_.WaitForEnds(1)[0];
  EXPECT_EQ(exited.exit_code(), kRankRetry);
  EXPECT_EQ(exited.state_left().shard().file(), "rank.state");
  const std::string file = options.memory_root + "/" + LeftStateFolder("uid-leaves", 1);
  EXPECT_TRUE(std::filesystem::exists(file));
  // Until the next one has made a step.
  supervisor_->Launch(Alone("other", 2, 0, 3));
  recorder_.WaitForEnds(2);
  EXPECT_TRUE(std::filesystem::exists(file));
  supervisor_->Launch(Alone("leaves", 2, 0, 3));
  recorder_.WaitForEnds(3);
  EXPECT_FALSE(std::filesystem::exists(file));
  supervisor_ = nullptr;
  EXPECT_FALSE(std::filesystem::exists(options.memory_root));
}

TEST_F(SupervisorTest, WhoDoesNotBeginToLeaveItsStateIsKilled) {
  SupervisorOptions options = Options();
  options.memory_root = folder_.Join("memory");
  std::filesystem::create_directories(options.memory_root);
  Restart(options);
  supervisor_->Launch(Alone("deaf", 1, 0, 1'000'000, {"step_ms=1"}));
  supervisor_->Launch(Alone("slow", 1, 1, 1'000'000, {"step_ms=1", "leave_ms=60000"}));
  recorder_.WaitForStep(5);
  const absl::Duration begin = SystemClock().Monotonic();
  for (const char* const name : {"deaf", "slow"}) {
    supervisor_->Stop(StopOf(FenceOf(name, 1, 0), lasp::v1::Stop::MODE_LEAVE_STATE, 4000));
  }
  for (const RankExited& exited : recorder_.WaitForEnds(2)) {
    EXPECT_EQ(exited.exit_code(), 128 + SIGKILL);
    EXPECT_FALSE(exited.has_state_left());
    EXPECT_THAT(exited.status().message(), HasSubstr("TESTED"));
  }
  EXPECT_GE(SystemClock().Monotonic() - begin, absl::Seconds(4));
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(30));
}

TEST_F(SupervisorTest, TellsOfRanksThatCannotBe) {
  supervisor_->Stop(StopOf(FenceOf("unknown", 1, 0), lasp::v1::Stop::MODE_KILL));
  EXPECT_THAT(recorder_.WaitForEnds(1)[0].status().message(), HasSubstr("no such rank"));
  supervisor_->Launch(Alone("a", 1, 4, 1));
  EXPECT_THAT(recorder_.WaitForEnds(2)[1].status().message(), HasSubstr("slot 4 of 4"));

  SupervisorOptions options = Options();
  options.rank_binary = folder_.Join("no-such-binary");
  Restart(options);
  supervisor_->Launch(Alone("b", 1, 0, 1));
  const RankExited exited = recorder_.WaitForEnds(3)[2];
  EXPECT_EQ(exited.exit_code(), kRankSuspectHost);
  EXPECT_THAT(exited.status().message(), HasSubstr("no-such-binary"));
}

TEST_F(SupervisorTest, RankThatReadsNothingHoldsUpNoOther) {
  supervisor_->Launch(Alone("hangs", 1, 0, 1'000'000, {"hang_at=1"}));
  recorder_.WaitForStep(1);
  // More than its socket takes.
  lasp::v1::PeerAddresses peers;
  *peers.mutable_fence() = FenceOf("hangs", 1, 0);
  peers.add_addresses(std::string(1 << 20, 'x'));
  supervisor_->SetPeers(peers);
  supervisor_->Launch(Alone("works", 1, 1, 30));
  EXPECT_EQ(recorder_.WaitForEnds(1)[0].fence().uid(), "uid-works");
  supervisor_->Stop(StopOf(FenceOf("hangs", 1, 0), lasp::v1::Stop::MODE_DRAIN, 100));
  EXPECT_EQ(recorder_.WaitForEnds(2)[1].exit_code(), 128 + SIGKILL);
}

TEST_F(SupervisorTest, LeavesNoProcessWhenItEnds) {
  for (int slot = 0; slot < 4; ++slot) {
    supervisor_->Launch(Alone(absl::StrCat("j", slot), 1, slot, 1'000'000, {"step_ms=1"}));
  }
  recorder_.WaitForStep(5);
  supervisor_.reset();
  EXPECT_EQ(recorder_.WaitForEnds(4).size(), 4U);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.Join("ranks")));
}

// Shows that a race is found: with LASP_PLANT_RACE set, ThreadSanitizer must end
// this test.
TEST_F(SupervisorTest, PlantedRaceIsFound) {
  const char* const plant = std::getenv("LASP_PLANT_RACE");
  if (plant == nullptr) {
    GTEST_SKIP() << "set LASP_PLANT_RACE under ThreadSanitizer";
  }
  size_t seen = 0;
  supervisor_->Launch(Alone("a", 1, 0, 5));
  // Nothing orders these reads after what the supervisor does meanwhile.
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Milliseconds(500);
  while (SystemClock().Monotonic() < deadline) {
    seen += SupervisorTestPeer::ReadRanksWithoutRight(*supervisor_);
  }
  EXPECT_GT(seen, 0U);
}

}  // namespace
}  // namespace lasp::worker
