#include "worker/parallel/gloo_communicator.h"

#include <gtest/gtest.h>

#include <latch>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/parallel/local_ranks.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

template <typename T>
Tensor View(std::vector<T>& values) {
  const auto count = static_cast<int64_t>(values.size());
  const DType type = std::is_same_v<T, double> ? DType::kFloat64 : DType::kFloat32;
  return Tensor{values.data(), type, 1, count, count};
}

// Values whose sum depends on the order of the additions.
template <typename T>
std::vector<T> Values(int rank, size_t count) {
  std::vector<T> values(count);
  uint32_t state = 12345u + 977u * static_cast<uint32_t>(rank);
  for (T& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<T>(state) / static_cast<T>(1u << 20) - static_cast<T>(2048);
  }
  return values;
}

template <typename T>
void ExpectSumsInRankOrder(int world, size_t count) {
  std::vector<T> expected = Values<T>(0, count);
  for (int rank = 1; rank < world; ++rank) {
    const std::vector<T> addend = Values<T>(rank, count);
    for (size_t i = 0; i < count; ++i) {
      expected[i] += addend[i];
    }
  }
  ExpectLocalRanks({.sp_size = 1, .dp_size = world}, [&](LocalRank& rank) -> absl::Status {
    std::vector<T> values = Values<T>(rank.grid.rank(), count);
    LASP_RETURN_IF_ERROR(rank.world->AllReduceSum(View(values)).Wait());
    EXPECT_EQ(values, expected) << "rank " << rank.grid.rank() << " of " << world;
    return absl::OkStatus();
  });
}

TEST(GlooCommunicatorTest, AllReduceAddsInRankOrderOnEveryRank) {
  for (const int world : {1, 2, 3, 4}) {
    // One round, two rounds, and pieces of unequal size.
    for (const size_t count : {1u, 7u, 1000u, 4099u}) {
      ExpectSumsInRankOrder<float>(world, count);
      ExpectSumsInRankOrder<double>(world, count);
    }
  }
}

TEST(GlooCommunicatorTest, ReduceScatterGivesEachRankItsSumInRankOrder) {
  for (const int world : {1, 2, 3, 4}) {
    constexpr int64_t kPart = 65;
    const size_t count = kPart * static_cast<size_t>(world);
    ExpectLocalRanks({.sp_size = 1, .dp_size = world}, [&](LocalRank& rank) -> absl::Status {
      const int place = rank.grid.rank();
      std::vector<float> summed = Values<float>(place, count);
      LASP_RETURN_IF_ERROR(rank.world->AllReduceSum(View(summed)).Wait());
      const std::vector<float> want(summed.begin() + place * kPart,
                                    summed.begin() + (place + 1) * kPart);
      const int64_t before = rank.world->counters().sent_bytes;
      std::vector<float> apart(kPart);
      const std::vector<float> given = Values<float>(place, count);
      std::vector<float> values = given;
      LASP_RETURN_IF_ERROR(rank.world->ReduceScatterSum(View(values), View(apart)).Wait());
      EXPECT_EQ(apart, want);
      EXPECT_EQ(values, given);
      EXPECT_EQ(rank.world->counters().sent_bytes - before, (world - 1) * kPart * 4);
      // In place; and gathered in place again: what an all-reduce gives.
      const Tensor mine = View(values).Columns(place * kPart, kPart).Reshape(1, kPart);
      LASP_RETURN_IF_ERROR(rank.world->ReduceScatterSum(View(values), mine).Wait());
      LASP_RETURN_IF_ERROR(rank.world->AllGather(mine, View(values)).Wait());
      EXPECT_EQ(values, summed);
      return absl::OkStatus();
    });
  }
}

TEST(GlooCommunicatorTest, AllReduceSendsWhatTheAlgorithmNeeds) {
  constexpr int kWorld = 4;
  constexpr int64_t kCount = 4096;
  ExpectLocalRanks({.sp_size = kWorld}, [&](LocalRank& rank) -> absl::Status {
    std::vector<float> values(kCount, 1);
    LASP_RETURN_IF_ERROR(rank.world->AllReduceSum(View(values)).Wait());
    EXPECT_EQ(rank.world->counters().sent_bytes, kCount * 2 * (kWorld - 1) / kWorld * 4);
    EXPECT_EQ(rank.sp->counters().sent_bytes, 0);
    return absl::OkStatus();
  });
}

TEST(GlooCommunicatorTest, ARingOfReceiveWorkAndSendRunsInOrder) {
  constexpr int kWorld = 4;
  ExpectLocalRanks({.sp_size = kWorld}, [&](LocalRank& rank) -> absl::Status {
    const int place = rank.sp->rank();
    std::vector<float> state(3, 0);
    std::vector<Operation> operations;
    operations.reserve(50);
    for (int round = 0; round < 50; ++round) {
      if (place > 0) {
        operations.push_back(rank.sp->Receive(View(state), place - 1));
      }
      operations.push_back(rank.sp->Run([&state] {
        for (float& value : state) {
          value += 1;
        }
        return absl::OkStatus();
      }));
      if (place < kWorld - 1) {
        operations.push_back(rank.sp->Send(View(state), place + 1));
      }
    }
    for (Operation& operation : operations) {
      LASP_RETURN_IF_ERROR(operation.Wait());
    }
    // Rank 0 counts its rounds; each later rank adds one to what it received last.
    EXPECT_EQ(state[0], static_cast<float>(50 + place));
    EXPECT_EQ(rank.sp->counters().sent_bytes, place < kWorld - 1 ? 50 * 3 * 4 : 0);
    return absl::OkStatus();
  });
}

TEST(GlooCommunicatorTest, AnExchangeGoesAllWaysAtOnceAndInOrderBetweenTwo) {
  constexpr int kWorld = 4;
  ExpectLocalRanks({.sp_size = kWorld}, [&](LocalRank& rank) -> absl::Status {
    const int me = rank.sp->rank();
    // More than sockets hold: nobody may wait for another to receive first.
    constexpr size_t kCount = 1 << 20;
    constexpr size_t kMessages = size_t{2} * kWorld;
    for (int round = 0; round < 3; ++round) {
      std::vector<std::vector<float>> sent;
      std::vector<std::vector<float>> received(kMessages, std::vector<float>(kCount));
      sent.reserve(kMessages);
      std::vector<PeerTransfer> transfers;
      for (int message = 0; message < 2; ++message) {
        for (int peer = 0; peer < kWorld; ++peer) {
          sent.emplace_back(kCount, static_cast<float>(100 * me + 10 * peer + message));
          if (peer != me) {
            transfers.push_back({.peer = peer,
                                 .send = View(sent.back()),
                                 .there = {},
                                 .receive = View(received[message * kWorld + peer])});
          }
        }
      }
      LASP_RETURN_IF_ERROR(rank.sp->Exchange(transfers).Wait());
      for (int message = 0; message < 2; ++message) {
        for (int peer = 0; peer < kWorld; ++peer) {
          const float expected =
              peer == me ? 0 : static_cast<float>(100 * peer + 10 * me + message);
          EXPECT_EQ(received[message * kWorld + peer], std::vector<float>(kCount, expected));
        }
      }
    }
    EXPECT_EQ(rank.sp->counters().sent_bytes,
              int64_t{3} * 2 * (kWorld - 1) * static_cast<int64_t>(kCount) * 4);
    return rank.sp->Exchange({}).Wait();
  });
}

TEST(GlooCommunicatorTest, GroupsDoNotMix) {
  ExpectLocalRanks({.sp_size = 2, .dp_size = 2}, [&](LocalRank& rank) -> absl::Status {
    std::vector<double> sp = {1.0 + rank.grid.rank()};
    std::vector<double> dp = {1.0 + rank.grid.rank()};
    std::vector<double> world = {1.0 + rank.grid.rank()};
    Operation a = rank.sp->AllReduceSum(View(sp));
    Operation b = rank.dp->AllReduceSum(View(dp));
    Operation c = rank.world->AllReduceSum(View(world));
    LASP_RETURN_IF_ERROR(a.Wait());
    LASP_RETURN_IF_ERROR(b.Wait());
    LASP_RETURN_IF_ERROR(c.Wait());
    EXPECT_EQ(sp[0], rank.grid.dp_rank() == 0 ? 3 : 7);
    EXPECT_EQ(dp[0], rank.grid.sp_rank() == 0 ? 4 : 6);
    EXPECT_EQ(world[0], 10);
    return absl::OkStatus();
  });
}

TEST(GlooCommunicatorTest, BroadcastAllGatherAndBarrier) {
  constexpr int kWorld = 3;
  ExpectLocalRanks({.sp_size = kWorld}, [&](LocalRank& rank) -> absl::Status {
    std::vector<float> value = {static_cast<float>(10 + rank.grid.rank())};
    std::vector<float> all(kWorld);
    LASP_RETURN_IF_ERROR(rank.world->AllGather(View(value), View(all)).Wait());
    EXPECT_EQ(all, (std::vector<float>{10, 11, 12}));
    LASP_RETURN_IF_ERROR(rank.world->Broadcast(View(value), 1).Wait());
    EXPECT_EQ(value[0], 11);
    return rank.world->Barrier().Wait();
  });
}

TEST(GlooCommunicatorTest, APeerThatLeavesMakesTheOthersFailAndStayFailed) {
  const auto statuses =
      RunLocalRanks({.sp_size = 3, .leave_early = true}, [&](LocalRank& rank) -> absl::Status {
        if (rank.grid.rank() == 1) {
          return absl::OkStatus();
        }
        std::vector<float> values(5000, 1);
        const absl::Status first = rank.world->AllReduceSum(View(values)).Wait();
        const absl::Status second = rank.world->Barrier().Wait();
        EXPECT_EQ(first, second);
        return first;
      });
  EXPECT_THAT(statuses[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank")));
  EXPECT_THAT(statuses[2], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank")));
}

TEST(GlooCommunicatorTest, APeerThatNeverAnswersIsATimeout) {
  std::latch given_up(1);
  const auto statuses =
      RunLocalRanks({.sp_size = 2, .timeout = absl::Milliseconds(500)}, [&](LocalRank& rank) {
        if (rank.grid.rank() == 1) {
          given_up.wait();
          return absl::OkStatus();
        }
        std::vector<float> values(1);
        const absl::Status status = rank.sp->Receive(View(values), 1).Wait();
        given_up.count_down();
        return status;
      });
  EXPECT_THAT(statuses[0], StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("rank 1")));
}

TEST(GlooCommunicatorTest, ClosingCancelsWhatIsUnderWay) {
  ExpectLocalRanks({.sp_size = 2}, [&](LocalRank& rank) -> absl::Status {
    std::vector<float> values(1);
    if (rank.grid.rank() == 0) {
      // Nobody sends: without a cancellation the destructor would wait for the timeout.
      GlooCommunicator lonely(rank.mesh, rank.backend,
                              {.members = {0, 1}, .slot = GlooCommunicator::kFirstSlot + 9});
      lonely.Receive(View(values), 1);
    }
    return rank.world->Barrier().Wait();
  });
}

}  // namespace
}  // namespace lasp::worker
