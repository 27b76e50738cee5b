#include "worker/optim/step_guard.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(StepGuardTest, ForgivesAfterAnUpdateAndFailsAfterTooManySkips) {
  StepGuard guard(2);
  guard.Count(true);
  guard.Count(true);
  LASP_EXPECT_OK(guard.status());
  guard.Count(false);
  guard.Count(true);
  guard.Count(true);
  LASP_EXPECT_OK(guard.status());
  guard.Count(true);
  EXPECT_THAT(guard.status(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("optimizer.max_skipped_steps (2)")));
  EXPECT_EQ(guard.skipped_total(), 5);
  EXPECT_EQ(guard.updates(), 1);
}

}  // namespace
}  // namespace lasp::worker
