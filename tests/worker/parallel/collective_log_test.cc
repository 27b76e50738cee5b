#include "worker/parallel/collective_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "proto/rpc/status_macros.h"
#include "tests/server/core/fake_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/parallel/gloo_communicator.h"

namespace lasp::worker {
namespace {

using ::testing::IsEmpty;

TEST(CollectiveLogTest, TellsWhatIsUnderWayAndForWhomItWaits) {
  testing::FakeClock time;
  CollectiveLog log("sp", {4, 5, 6}, &time);
  EXPECT_EQ(log.position().issued, 0u);
  const uint32_t first = log.Issue(kReceive, 0, 100);
  const uint32_t second = log.Issue(kAllReduce, kAllPeers, 8);
  time.Advance(absl::Seconds(1));
  log.Begin(first);
  GroupPosition position = log.position();
  EXPECT_EQ(position.group, "sp");
  EXPECT_EQ(position.issued, 2u);
  EXPECT_EQ(position.begun, 1u);
  EXPECT_EQ(position.ended, 0u);
  EXPECT_EQ(position.operation, kReceive);
  EXPECT_EQ(position.peer, 4);
  EXPECT_FALSE(position.awaited);
  log.End(first);
  EXPECT_EQ(log.position().traffic.at(4).received, 1u);
  EXPECT_THAT(log.position().operation, IsEmpty());
  log.Begin(second);
  EXPECT_EQ(log.position().peer, kAllPeers);
  log.WaitFor(2);
  log.EnterWait();
  EXPECT_EQ(log.position().peer, 6);
  EXPECT_TRUE(log.position().awaited);
  log.LeaveWait();
  EXPECT_FALSE(log.position().awaited);
  const std::vector<CollectiveRecord> records = log.Last();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].begun - records[0].issued, absl::Seconds(1));
  EXPECT_EQ(records[1].ended, -absl::InfiniteDuration());
}

TEST(CollectiveLogTest, KeepsTheLastFew) {
  testing::FakeClock time;
  CollectiveLog log("world", {0, 1}, &time);
  for (int i = 0; i < 1000; ++i) {
    log.Begin(log.Issue(kSend, 1, 8));
    log.End(log.position().issued);
  }
  EXPECT_EQ(log.Last().size(), CollectiveLog::kKept);
  EXPECT_EQ(log.Last().back().number, 1000u);
  EXPECT_EQ(log.position().traffic.at(1).sent, 1000u);
}

TEST(CollectiveLogTest, ADeviceIsAsked) {
  testing::FakeClock time;
  CollectiveLog log("world", {0, 1}, &time);
  std::pair<uint32_t, uint32_t> numbers{0, 0};
  log.Follow([&numbers] { return numbers; });
  log.Issue(kSend, 1, 8);
  log.Issue(kReceive, 1, 8);
  numbers = {2, 1};
  const GroupPosition position = log.position();
  EXPECT_EQ(position.begun, 2u);
  EXPECT_EQ(position.operation, kReceive);
  EXPECT_TRUE(position.awaited);
  EXPECT_EQ(position.traffic.at(1).sent, 1u);
  log.Follow(nullptr);
}

// The real communicator tells the log.
TEST(CollectiveLogTest, CommunicatorsTellIt) {
  const std::array<std::unique_ptr<CollectiveJournal>, 2> journals = {
      std::make_unique<CollectiveJournal>(), std::make_unique<CollectiveJournal>()};
  const auto statuses =
      RunLocalRanks({.sp_size = 2, .dp_size = 1}, [&](LocalRank& rank) -> absl::Status {
        CollectiveLog* const log =
            journals[static_cast<size_t>(rank.grid.rank())]->Add("test", rank.grid.World());
        GlooCommunicator communicator(
            rank.mesh, rank.backend,
            {.members = rank.grid.World(), .slot = GlooCommunicator::kFirstSlot + 7, .log = log});
        double value = 1;
        const Tensor tensor{&value, DType::kFloat64, 1, 1, 1};
        LASP_RETURN_IF_ERROR(communicator.AllReduceSum(tensor).Wait());
        return communicator.Barrier().Wait();
      });
  for (const absl::Status& status : statuses) {
    LASP_EXPECT_OK(status);
  }
  for (const auto& journal : journals) {
    const GroupPosition position = journal->logs()[0]->position();
    EXPECT_EQ(position.issued, 2u);
    EXPECT_EQ(position.ended, 2u);
    EXPECT_EQ(journal->logs()[0]->Last()[1].operation, std::string(kBarrier));
  }
}

}  // namespace
}  // namespace lasp::worker
