// gtest matchers for absl::Status and absl::StatusOr (Debian's Abseil has none).
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lasp::testing {

// NOLINTNEXTLINE(bugprone-return-const-ref-from-parameter): a matcher's argument outlives the match
inline const absl::Status& GetStatus(const absl::Status& status) { return status; }

template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

// EXPECT_THAT(F(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("corpus.txt")));
MATCHER_P2(StatusIs, code, message_matcher, "") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message_matcher, std::string(status.message()),
                                       result_listener);
}

MATCHER(IsOk, "") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

}  // namespace lasp::testing

#define LASP_EXPECT_OK(expression) EXPECT_THAT((expression), ::lasp::testing::IsOk())
#define LASP_ASSERT_OK(expression) ASSERT_THAT((expression), ::lasp::testing::IsOk())
