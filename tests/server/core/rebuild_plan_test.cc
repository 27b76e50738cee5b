#include "server/rebuild_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace lasp::server {
namespace {

LeftState Left(const std::string& worker, int64_t step, int64_t begin, int64_t count,
               int64_t total = 100) {
  LeftState left{.worker_id = worker, .state = {}};
  left.state.mutable_state()->set_step(step);
  lasp::v1::StatePiece& piece = *left.state.add_pieces();
  piece.set_begin(begin);
  piece.set_count(count);
  left.state.set_total_count(total);
  left.state.mutable_shard()->set_file(absl::StrCat(worker, "-", begin));
  return left;
}

// "reader:begin+count", part by part; empty for no plan.
std::string Plan(const std::vector<LeftState>& states, const std::vector<std::string>& workers,
                 int64_t after_step = 0) {
  const auto plan = PlanRebuild({.generation = 3, .states = states}, workers, after_step);
  if (!plan.has_value()) {
    return "";
  }
  EXPECT_EQ(plan->generation(), 3);
  std::string text = absl::StrCat("step ", plan->state().step());
  for (const lasp::v1::RebuildPart& part : plan->parts()) {
    absl::StrAppend(&text, " ", part.reader());
    for (const lasp::v1::StatePiece& piece : part.pieces()) {
      absl::StrAppend(&text, ":", piece.begin(), "+", piece.count());
    }
  }
  return text;
}

TEST(RebuildPlanTest, AShareIsReadWhereItLies) {
  EXPECT_EQ(Plan({Left("b", 5, 50, 50), Left("a", 5, 0, 50)}, {"a", "a", "b", "b"}),
            "step 5 0:0+50 2:50+50");
  EXPECT_EQ(Plan({Left("b", 5, 50, 50), Left("b", 5, 0, 50)}, {"a", "a", "b", "b"}),
            "step 5 2:0+50 3:50+50");
  // Twice the same.
  EXPECT_EQ(Plan({Left("a", 5, 0, 100), Left("b", 5, 0, 100)}, {"b"}), "step 5 0:0+100");
}

TEST(RebuildPlanTest, NothingComesOfAPart) {
  EXPECT_EQ(Plan({}, {"a"}), "");
  EXPECT_EQ(Plan({Left("a", 5, 0, 50)}, {"a"}), "");
  EXPECT_EQ(Plan({Left("a", 5, 50, 50)}, {"a"}), "");
  // On a host that has no rank any more.
  EXPECT_EQ(Plan({Left("a", 5, 0, 50), Left("b", 5, 50, 50)}, {"a", "a"}), "");
  EXPECT_EQ(Plan({Left("a", 5, 0, 60), Left("a", 5, 50, 50)}, {"a"}), "");
  EXPECT_EQ(Plan({Left("a", 5, 0, 50), Left("a", 5, 50, 60)}, {"a"}), "");
}

TEST(RebuildPlanTest, TheNewestStepThatIsWhole) {
  const std::vector<LeftState> states = {Left("a", 6, 0, 50), Left("a", 5, 50, 50),
                                         Left("b", 5, 0, 50), Left("b", 5, 50, 50)};
  EXPECT_EQ(Plan(states, {"a", "b"}), "step 5 1:0+50 0:50+50");
  EXPECT_EQ(Plan(states, {"a", "b"}, 4), "step 5 1:0+50 0:50+50");
  // The checkpoint is as new.
  EXPECT_EQ(Plan(states, {"a", "b"}, 5), "");
}

// As ranks have them that own a part of each block.
TEST(RebuildPlanTest, SharesOfSeveralPieces) {
  const auto with = [](LeftState left, int64_t begin, int64_t count) {
    lasp::v1::StatePiece& piece = *left.state.add_pieces();
    piece.set_begin(begin);
    piece.set_count(count);
    return left;
  };
  const LeftState first = with(Left("a", 5, 0, 20), 40, 30);
  const LeftState second = with(Left("b", 5, 20, 20), 70, 30);
  EXPECT_EQ(Plan({second, first}, {"a", "b"}), "step 5 0:0+20:40+30 1:20+20:70+30");
  EXPECT_EQ(Plan({second}, {"a", "b"}), "");
  EXPECT_EQ(Plan({first, with(Left("b", 5, 20, 20), 70, 31)}, {"a", "b"}), "");
  EXPECT_EQ(Plan({first, with(Left("b", 5, 20, 20), 40, 60)}, {"a", "b"}), "");
}

TEST(RebuildPlanTest, StatesThatDifferAreNotOne) {
  LeftState other = Left("a", 5, 50, 50);
  other.state.mutable_state()->set_update_count(4);
  EXPECT_EQ(Plan({Left("a", 5, 0, 50), other}, {"a"}), "");
  EXPECT_EQ(Plan({Left("a", 5, 0, 50), Left("a", 5, 50, 50, 101)}, {"a"}), "");
  // Of replicas that differ, one that is whole, and nothing of the other.
  const LeftState half = Left("b", 5, 0, 50);
  EXPECT_EQ(Plan({half, Left("b", 5, 50, 50), other}, {"a", "b"}), "step 5 1:0+50 1:50+50");
  EXPECT_TRUE(StatesDiffer({.generation = 3, .states = {half, other}}));
  EXPECT_FALSE(StatesDiffer({.generation = 3, .states = {half, Left("a", 6, 0, 50)}}));
}

TEST(RebuildPlanTest, ALogSaysWhoLeftWhat) {
  LeftState other = Left("b", 5, 50, 30);
  other.state.mutable_state()->set_update_count(4);
  EXPECT_EQ(
      DescribeLeft({.generation = 3, .states = {Left("a", 5, 0, 50), other, Left("c", 5, 0, 9)}}),
      "workers/a: 50 of 100 elements of step 5, state 1, "
      "workers/b: 30 of 100 elements of step 5, state 2, "
      "workers/c: 9 of 100 elements of step 5, state 1");
  EXPECT_EQ(DescribeLeft({}), "");
}

}  // namespace
}  // namespace lasp::server
