#include "worker/parallel/process_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lasp::worker {
namespace {

using ::testing::ElementsAre;

TEST(ProcessGridTest, SpGroupsAreContiguousAndDpGroupsStrided) {
  const ProcessGrid grid = ProcessGrid::Create(6, 4, 2).value();
  EXPECT_EQ(grid.world_size(), 8);
  EXPECT_EQ(grid.sp_rank(), 2);
  EXPECT_EQ(grid.dp_rank(), 1);
  EXPECT_THAT(grid.SpGroup(), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(grid.DpGroup(), ElementsAre(2, 6));
  EXPECT_THAT(grid.World(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(ProcessGridTest, RefusesRanksOutsideTheWorldAndEmptyGroups) {
  EXPECT_FALSE(ProcessGrid::Create(8, 4, 2).ok());
  EXPECT_FALSE(ProcessGrid::Create(-1, 4, 2).ok());
  EXPECT_FALSE(ProcessGrid::Create(0, 0, 2).ok());
  EXPECT_FALSE(ProcessGrid::Create(0, 1, 0).ok());
}

}  // namespace
}  // namespace lasp::worker
