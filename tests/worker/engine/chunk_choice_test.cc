#include "worker/engine/chunk_choice.h"

#include <gtest/gtest.h>

namespace lasp::worker {
namespace {

TEST(ChunkChoiceTest, TakesTheMostThatFits) {
  constexpr int64_t kFixed = 1'000'000;
  constexpr int64_t kPerToken = 1000;
  const auto choose = [](int64_t tokens_worth) {
    return MostSliceTokens(kFixed + tokens_worth * kPerToken,
                           [](int64_t tokens) { return kFixed + tokens * kPerToken; });
  };
  EXPECT_EQ(choose(65'536), 65'536);
  EXPECT_EQ(choose(1'000'000), 65'536);
  EXPECT_EQ(choose(65'535), 64 * 1024 - 1024);
  EXPECT_EQ(choose(5000), 4096);
  EXPECT_EQ(choose(1024), 1024);
  EXPECT_EQ(choose(1023), 960);
  EXPECT_EQ(choose(64), 64);
  // Nothing fits: what then fails names the memory.
  EXPECT_EQ(choose(63), 64);
  EXPECT_EQ(choose(-100), 64);
}

TEST(ChunkChoiceTest, LeavesRoomForWhatLibrariesLoad) {
  constexpr int64_t kGib = int64_t{1} << 30;
  EXPECT_LT(UsableBytes(140 * kGib), 138 * kGib);
  EXPECT_GT(UsableBytes(140 * kGib), 125 * kGib);
  EXPECT_EQ(UsableBytes(kGib), 0);
}

}  // namespace
}  // namespace lasp::worker
