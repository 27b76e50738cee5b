#include "worker/data/macro_chunks.h"

#include <gtest/gtest.h>

namespace lasp::worker {
namespace {

TEST(MacroChunksTest, SlicesCoverTheSequenceInOrder) {
  for (const int64_t length : {1, 2, 7, 12, 13, 100}) {
    for (const int sp_size : {1, 2, 3, 5}) {
      for (const int64_t tokens : {1, 3, 4, 1000}) {
        SCOPED_TRACE(testing::Message()
                     << length << " tokens, SP " << sp_size << ", slices of " << tokens);
        const MacroChunks chunks(length, sp_size, tokens);
        int64_t next = 0;
        for (int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
          for (int rank = 0; rank < sp_size; ++rank) {
            EXPECT_EQ(chunks.SliceBegin(chunk, rank), next);
            const int64_t slice = chunks.SliceTokens(chunk, rank);
            EXPECT_TRUE(slice == chunks.slice_tokens() || slice == 0 ||
                        slice == chunks.last_slices().CutShort());
            next += slice;
          }
          EXPECT_GT(chunks.SliceTokens(chunk, 0), 0);
        }
        EXPECT_EQ(next, length);
      }
    }
  }
}

TEST(MacroChunksTest, NoSliceIsLongerThanItsShareOfTheWhole) {
  EXPECT_EQ(MacroChunks(100, 4, 1000).slice_tokens(), 25);
  EXPECT_EQ(MacroChunks(101, 4, 1000).slice_tokens(), 26);
  EXPECT_EQ(MacroChunks::One(100, 4).count(), 1);
}

TEST(MacroChunksTest, TrainingGoesForwardAndBackAndTurnsAtTheLast) {
  const MacroChunks chunks(100, 2, 17);
  std::vector<int64_t> order;
  order.reserve(5);
  for (int64_t pass = 0; pass < chunks.pass_count(); ++pass) {
    order.push_back(chunks.ChunkOfPass(pass));
  }
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 1, 0}));
}

}  // namespace
}  // namespace lasp::worker
