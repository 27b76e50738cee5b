#include "worker/optim/step_guard.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(StepGuardTest, ClipsAboveTheLimitOnly) {
  StepGuard guard(2.0, 3);
  EXPECT_EQ(guard.Judge(1, 1.9).gradient_scale, 1);
  EXPECT_EQ(guard.Judge(1, 8).gradient_scale, 0.25);
  StepGuard unlimited(0, 3);
  EXPECT_EQ(unlimited.Judge(1, 1e30).gradient_scale, 1);
}

TEST(StepGuardTest, SkipsWhatIsNotFiniteAndForgivesAfterAGoodStep) {
  StepGuard guard(1.0, 2);
  EXPECT_TRUE(guard.Judge(kNaN, 1).skip);
  EXPECT_TRUE(guard.Judge(1, kInfinity).skip);
  LASP_EXPECT_OK(guard.status());
  EXPECT_FALSE(guard.Judge(1, 1).skip);
  EXPECT_TRUE(guard.Judge(1, kNaN).skip);
  EXPECT_TRUE(guard.Judge(-kInfinity, 1).skip);
  LASP_EXPECT_OK(guard.status());
  EXPECT_TRUE(guard.Judge(1, kNaN).skip);
  EXPECT_THAT(guard.status(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("optimizer.max_skipped_steps (2)")));
  EXPECT_EQ(guard.skipped_total(), 5);
}

}  // namespace
}  // namespace lasp::worker
