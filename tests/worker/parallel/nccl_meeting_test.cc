#include "worker/parallel/nccl_meeting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int kRanks = 4;

std::string Id() { return std::string(kNcclIdBytes, '\x07'); }

class NcclMeetingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int rank = 0; rank < kRanks; ++rank) {
      meetings_.push_back(NcclMeeting::Listen(rank, kRanks, "job/uid/1", "127.0.0.1",
                                              rank == 0 ? Id() : std::string())
                              .value());
      addresses_.push_back(meetings_.back()->Address());
    }
  }

  // All but `absent` come, each on a thread of its own.
  std::vector<absl::StatusOr<std::string>> Meet(int absent, absl::Duration timeout) {
    std::vector<absl::StatusOr<std::string>> met(kRanks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      if (rank != absent) {
        threads.emplace_back([this, &met, rank, timeout] {
          met[rank] = meetings_[rank]->Meet(addresses_, timeout, [] { return false; });
        });
      }
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return met;
  }

  std::vector<std::unique_ptr<NcclMeeting>> meetings_;
  std::vector<std::string> addresses_;
};

TEST_F(NcclMeetingTest, AllGetTheIdOfRank0) {
  for (const absl::StatusOr<std::string>& id : Meet(-1, absl::Seconds(30))) {
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(*id, Id());
  }
}

TEST_F(NcclMeetingTest, TheRankThatDoesNotComeIsNamed) {
  // It listens, as one does that hangs behind that.
  const std::vector<absl::StatusOr<std::string>> met = Meet(2, absl::Seconds(2));
  for (const int rank : {0, 1, 3}) {
    EXPECT_THAT(met[rank].status(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 2")))
        << "rank " << rank;
  }
}

TEST_F(NcclMeetingTest, WhatIsNoAddressIsRefused) {
  addresses_[0] = Id().substr(1);
  EXPECT_THAT(meetings_[1]->Meet(addresses_, absl::Seconds(30), [] { return false; }).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 0")));
  addresses_[0] = Id();
  EXPECT_THAT(meetings_[1]->Meet(addresses_, absl::Seconds(30), [] { return false; }).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 0")));
}

TEST(NcclMeetingListenTest, Rank0AloneBringsAnId) {
  for (const int rank : {0, 1}) {
    EXPECT_THAT(
        NcclMeeting::Listen(rank, 2, "job/uid/1", "127.0.0.1", rank == 0 ? std::string() : Id())
            .status(),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("NCCL id")));
  }
}

}  // namespace
}  // namespace lasp::worker
