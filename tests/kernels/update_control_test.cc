#include "kernels/update_control.h"

#include <gtest/gtest.h>

#include <limits>
#include <utility>

namespace lasp::kernels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void Judge(double limit, double loss, double sum_of_squares, UpdateControl* control) {
  cpu::JudgeUpdate({.max_gradient_norm = limit,
                    .loss = &loss,
                    .sum_of_squares = &sum_of_squares,
                    .control = control});
}

TEST(UpdateControlTest, ClipsAboveTheLimitOnly) {
  UpdateControl control;
  Judge(2, 1, 3.9, &control);
  EXPECT_EQ(control.gradient_scale, 1);
  Judge(2, 1, 64, &control);
  EXPECT_EQ(control.gradient_scale, 0.25);
  EXPECT_EQ(control.gradient_norm, 8);
  Judge(0, 1, 1e60, &control);
  EXPECT_EQ(control.gradient_scale, 1);
  EXPECT_EQ(control.updates, 3);
  EXPECT_NEAR(control.correction1, 1 - 0.9 * 0.9 * 0.9, 1e-15);
}

TEST(UpdateControlTest, LeavesAndDoesNotCountWhatWasBrokenOff) {
  UpdateControl control;
  const double one = 1;
  uint32_t broken_off = 1;
  const JudgeUpdateArgs args{
      .loss = &one, .sum_of_squares = &one, .control = &control, .broken_off = &broken_off};
  cpu::JudgeUpdate(args);
  EXPECT_EQ(control.apply, 0);
  EXPECT_EQ(control.updates + control.skipped, 0);
  broken_off = 0;
  cpu::JudgeUpdate(args);
  EXPECT_EQ(control.apply, 1);
  EXPECT_EQ(control.updates, 1);
}

TEST(UpdateControlTest, RefusesAndCountsWhatIsNotFinite) {
  UpdateControl control;
  Judge(1, 1, 1, &control);
  double skipped = 0;
  for (const auto& [loss, sum] :
       {std::pair{kNaN, 1.0}, {kInfinity, 1.0}, {-kInfinity, 1.0}, {1.0, kNaN}, {1.0, kInfinity}}) {
    Judge(1, loss, sum, &control);
    EXPECT_EQ(control.apply, 0) << loss << " " << sum;
    EXPECT_EQ(control.gradient_scale, 0) << loss << " " << sum;
    EXPECT_EQ(control.skipped_in_a_row, ++skipped);
  }
  EXPECT_EQ(control.updates, 1);
  Judge(1, 1, 1, &control);
  EXPECT_EQ(control.apply, 1);
  EXPECT_EQ(control.skipped, 5);
  EXPECT_EQ(control.skipped_in_a_row, 0);
  EXPECT_EQ(control.updates, 2);
}

// A sum that was broken off: the step was not made, and counts as nothing.
TEST(UpdateControlTest, LeavesAStepThatNotAllTookPartIn) {
  UpdateControl control;
  control.witness = 14;
  control.witness_wanted = 14;
  Judge(2, 1, 64, &control);
  EXPECT_EQ(control.apply, 1);
  const UpdateControl before = control;
  control.witness = 8;
  control.witness_wanted = 16;
  Judge(2, kNaN, 64, &control);
  EXPECT_EQ(control.apply, 0);
  EXPECT_EQ(control.updates, before.updates);
  EXPECT_EQ(control.skipped, before.skipped);
  EXPECT_EQ(control.skipped_in_a_row, before.skipped_in_a_row);
  EXPECT_EQ(control.correction1, before.correction1);
}

TEST(UpdateControlTest, RefusesALossAboveTheLimit) {
  UpdateControl control;
  control.loss_limit = 5;
  Judge(0, 5, 1, &control);
  EXPECT_EQ(control.apply, 1);
  Judge(0, 5.001, 1, &control);
  EXPECT_EQ(control.apply, 0);
  EXPECT_EQ(control.skipped, 1);
}

}  // namespace
}  // namespace lasp::kernels
