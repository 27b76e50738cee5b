#include "server/call_rate.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "tests/server/core/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::FakeClock;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(CallRateTest, GivesEachPrincipalItsOwnCalls) {
  FakeClock clock;
  CallRate rate(&clock, 10);
  for (int i = 0; i < 20; ++i) {
    LASP_EXPECT_OK(rate.Admit("ann"));
  }
  const absl::Status refused = rate.Admit("ann");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("ann calls more often than 10 times a second")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_CALLS");
  EXPECT_TRUE(refused.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  LASP_EXPECT_OK(rate.Admit("bob"));

  clock.Advance(absl::Milliseconds(110));
  LASP_EXPECT_OK(rate.Admit("ann"));
  EXPECT_FALSE(rate.Admit("ann").ok());
  clock.Advance(absl::Hours(1));
  for (int i = 0; i < 20; ++i) {
    LASP_EXPECT_OK(rate.Admit("ann"));
  }
  EXPECT_FALSE(rate.Admit("ann").ok());
}

TEST(CallRateTest, RemembersSoManyPrincipals) {
  FakeClock clock;
  CallRate rate(&clock, 1);
  for (size_t i = 0; i < CallRate::kMaxPrincipals + 100; ++i) {
    LASP_EXPECT_OK(rate.Admit(absl::StrCat("host-", i)));
  }
  EXPECT_LE(rate.size(), CallRate::kMaxPrincipals);
  clock.Advance(absl::Seconds(10));
  LASP_EXPECT_OK(rate.Admit("another"));
  EXPECT_EQ(rate.size(), 1U);
}

}  // namespace
}  // namespace lasp::server
