#include "worker/optim/learning_rate_schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lasp::worker {
namespace {

using ::lasp::v1::OptimizerSpec;

LearningRateSchedule Make(OptimizerSpec::Schedule schedule, int64_t warmup = 10,
                          int64_t decay_steps = 20, int64_t max_steps = 110) {
  OptimizerSpec spec;
  spec.set_learning_rate(1.0);
  spec.set_min_learning_rate(0.1);
  spec.set_warmup_steps(warmup);
  spec.set_schedule(schedule);
  spec.set_decay_steps(decay_steps);
  return {spec, max_steps};
}

TEST(LearningRateScheduleTest, EveryScheduleWarmsUpLinearlyToThePeak) {
  for (const auto schedule : {OptimizerSpec::SCHEDULE_CONSTANT, OptimizerSpec::SCHEDULE_LINEAR,
                              OptimizerSpec::SCHEDULE_COSINE, OptimizerSpec::SCHEDULE_WSD}) {
    EXPECT_DOUBLE_EQ(Make(schedule).At(1), 0.1);
    EXPECT_DOUBLE_EQ(Make(schedule).At(5), 0.5);
    EXPECT_DOUBLE_EQ(Make(schedule).At(10), 1.0);
  }
}

TEST(LearningRateScheduleTest, EndsWhereTheSpecSays) {
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_CONSTANT).At(110), 1.0);
  for (const auto schedule : {OptimizerSpec::SCHEDULE_LINEAR, OptimizerSpec::SCHEDULE_COSINE,
                              OptimizerSpec::SCHEDULE_WSD}) {
    EXPECT_NEAR(Make(schedule).At(110), 0.1, 1e-15);
  }
}

TEST(LearningRateScheduleTest, HasTheShapeBetween) {
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_LINEAR).At(60), 0.55);
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_COSINE).At(60), 0.55);
  EXPECT_NEAR(Make(OptimizerSpec::SCHEDULE_COSINE).At(35), 0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2,
              1e-15);
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_WSD).At(90), 1.0);
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_WSD).At(100), 0.55);
}

TEST(LearningRateScheduleTest, NeedsNoWarmUpAndMayBeNothingElse) {
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_CONSTANT, 0).At(1), 1.0);
  EXPECT_LT(Make(OptimizerSpec::SCHEDULE_LINEAR, 0).At(1), 1.0);
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_COSINE, 110).At(110), 1.0);
  // A decay longer than what the warm-up leaves starts after the warm-up.
  EXPECT_DOUBLE_EQ(Make(OptimizerSpec::SCHEDULE_WSD, 10, 1000).At(60), 0.55);
}

}  // namespace
}  // namespace lasp::worker
