#include "proto/rpc/metrics_exposer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The HTTP library itself knows no names.
TEST(MetricsExposerTest, ServesOnAName) {
  const auto exposer = MetricsExposer::Create("localhost:0");
  LASP_ASSERT_OK(exposer);
  EXPECT_THAT((*exposer)->address(), StartsWith("localhost:"));
  EXPECT_NE((*exposer)->address(), "localhost:0");
  EXPECT_THAT(MetricsExposer::Create((*exposer)->address()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr((*exposer)->address())));
}

}  // namespace
}  // namespace lasp
