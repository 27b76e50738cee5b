#include "worker/checkpoint/checkpoint_schedule.h"

#include <gtest/gtest.h>

#include "tests/worker/agent/manual_clock.h"

namespace lasp::worker {
namespace {

TEST(CheckpointScheduleTest, ByStepsAlone) {
  testing::ManualClock clock;
  lasp::v1::CheckpointSpec spec;
  spec.set_interval_steps(4);
  const CheckpointSchedule schedule(spec, &clock);
  clock.Advance(absl::Hours(1000));
  for (int64_t step = 1; step <= 12; ++step) {
    EXPECT_EQ(schedule.IsDue(step), step % 4 == 0) << step;
  }
}

TEST(CheckpointScheduleTest, ByTheClockUntilOneHasBegun) {
  testing::ManualClock clock;
  lasp::v1::CheckpointSpec spec;
  spec.mutable_interval()->set_seconds(60);
  CheckpointSchedule schedule(spec, &clock);
  clock.Advance(absl::Seconds(59));
  EXPECT_FALSE(schedule.IsDue(1));
  clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(schedule.IsDue(2));
  clock.Advance(absl::Seconds(30));
  EXPECT_TRUE(schedule.IsDue(3));
  schedule.Begun();
  clock.Advance(absl::Seconds(59));
  EXPECT_FALSE(schedule.IsDue(4));
  clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(schedule.IsDue(5));
}

TEST(CheckpointScheduleTest, WhicheverComesFirst) {
  testing::ManualClock clock;
  lasp::v1::CheckpointSpec spec;
  spec.set_interval_steps(100);
  spec.mutable_interval()->set_seconds(60);
  CheckpointSchedule schedule(spec, &clock);
  EXPECT_TRUE(schedule.IsDue(100));
  EXPECT_FALSE(schedule.IsDue(101));
  clock.Advance(absl::Seconds(60));
  EXPECT_TRUE(schedule.IsDue(101));
}

}  // namespace
}  // namespace lasp::worker
