// Who is named when a job hangs.
#include "server/stall_verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/proto_time.h"

namespace lasp::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Four ranks, SP 4: each waits in `operation` of a group for another.
class StallVerdictTest : public ::testing::Test {
 protected:
  StallVerdictTest() {
    for (int rank = 0; rank < 4; ++rank) {
      StalledRank& stalled = ranks_.emplace_back();
      stalled.worker_id = absl::StrCat("host-", rank);
      *stalled.progress.mutable_silence() = ToProtoDuration(absl::Milliseconds(400));
    }
  }

  lasp::v1::GroupPosition* Wait(size_t rank, const std::string& group, const std::string& operation,
                                int peer, uint32_t begun = 5) {
    auto* const position = ranks_[rank].progress.add_groups();
    position->set_group(group);
    position->set_awaited(true);
    position->set_operation(operation);
    position->set_peer(peer);
    position->set_begun(begun);
    position->set_ended(begun - 1);
    return position;
  }

  static void Exchange(lasp::v1::GroupPosition* position, int peer, uint32_t sent,
                       uint32_t received) {
    auto* const traffic = position->add_traffic();
    traffic->set_peer(peer);
    traffic->set_sent(sent);
    traffic->set_received(received);
  }

  std::vector<StalledRank> ranks_;
};

TEST_F(StallVerdictTest, TheOneThatDoesNotSpeak) {
  for (const size_t rank : {0, 2, 3}) {
    Wait(rank, "world", "all-reduce", 1);
  }
  Wait(1, "sp", "receive", 0);
  *ranks_[1].progress.mutable_silence() = ToProtoDuration(absl::Seconds(15));
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_THAT(verdict.culprits, ElementsAre(1));
  EXPECT_TRUE(verdict.certain);
  EXPECT_THAT(verdict.why, HasSubstr("rank 1 on workers/host-1 has not spoken"));
}

TEST_F(StallVerdictTest, TheOneThatComputesWhileTheChainWaits) {
  Wait(0, "sp", "receive", 1);
  // An exchange that is under way beside its computation is not what it waits for.
  Wait(1, "world", "all-reduce", 0)->set_awaited(false);
  Wait(2, "sp", "receive", 1);
  Wait(3, "sp", "receive", 2);
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_THAT(verdict.culprits, ElementsAre(1));
  EXPECT_TRUE(verdict.certain);
  EXPECT_THAT(verdict.why, HasSubstr("rank 1 on workers/host-1 waits for no other rank"));
}

TEST_F(StallVerdictTest, LocalWorkIsNoWait) {
  Wait(0, "sp", "local work", -1);
  Wait(1, "sp", "receive", 0);
  Wait(2, "sp", "receive", 1);
  Wait(3, "sp", "receive", 2);
  EXPECT_THAT(JudgeStall(ranks_).culprits, ElementsAre(0));
}

TEST_F(StallVerdictTest, NobodyIsBlamedForAnExchangeByItsNumber) {
  // A ring that takes a state in blocks: later ranks are so many exchanges behind.
  for (int rank = 0; rank < 4; ++rank) {
    Wait(rank, "sp", "exchange", rank == 0 ? 1 : rank - 1)->set_begun(10 - rank);
  }
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_TRUE(verdict.culprits.empty());
  EXPECT_FALSE(verdict.certain);
}

TEST_F(StallVerdictTest, TheOneThatWaitsForWhatHasBeenSent) {
  // Rank 2 has sent ten times to rank 1, which has received nine. The rest waits along the chain.
  Exchange(Wait(1, "sp", "receive", 2), 2, 10, 9);
  Exchange(Wait(0, "sp", "receive", 1), 1, 9, 9);
  auto* const second = Wait(2, "world", "all-reduce", 1);
  second->set_begun(8);
  auto* const sp = ranks_[2].progress.add_groups();
  sp->set_group("sp");
  Exchange(sp, 1, 10, 10);
  Wait(3, "world", "all-reduce", 1, 8);
  for (const size_t rank : {0, 1}) {
    auto* const world = ranks_[rank].progress.add_groups();
    world->set_group("world");
    world->set_begun(7);
    world->set_ended(7);
  }
  Exchange(ranks_[1].progress.mutable_groups(0), 0, 9, 9);
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_THAT(verdict.culprits, ElementsAre(1));
  EXPECT_FALSE(verdict.certain);
  EXPECT_THAT(verdict.why, HasSubstr("rank 1 on workers/host-1 waits in receive 5 of the sp group "
                                     "for rank 2 on workers/host-2, which has sent"));
}

TEST_F(StallVerdictTest, InOneOperationTheOneThatMostWaitFor) {
  Wait(0, "world", "all-reduce", 2);
  Wait(1, "world", "all-reduce", 2);
  Wait(2, "world", "all-reduce", 0);
  Wait(3, "world", "all-reduce", 2);
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_THAT(verdict.culprits, ElementsAre(2));
  EXPECT_THAT(verdict.why, HasSubstr("or the connection between them"));
}

TEST_F(StallVerdictTest, NobodyWhereNobodyCanBeTold) {
  for (size_t rank = 0; rank < 4; ++rank) {
    Wait(rank, "world", "all-reduce", -1);
  }
  const StallVerdict verdict = JudgeStall(ranks_);
  EXPECT_THAT(verdict.culprits, IsEmpty());
  EXPECT_THAT(verdict.why, HasSubstr("the network or a device"));
}

}  // namespace
}  // namespace lasp::server
