#include "worker/engine/exit_code.h"

#include <gtest/gtest.h>

#include "proto/rpc/rank_exit_code.h"

namespace lasp::worker {
namespace {

TEST(ExitCodeTest, SaysWhatTheAgentShouldDo) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), kRankDone);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("a peer is gone")), kRankRetry);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("nothing came")), kRankRetry);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("no corpus")), kRankWrongConfiguration);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("too large for the GPU")),
            kRankWrongConfiguration);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("no memory")), kRankSuspectHost);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("the GPU fails")), kRankSuspectHost);
}

TEST(ExitCodeTest, WhatSpeaksAgainstTheHostKeepsItsCodeAndMessage) {
  const absl::Status status = SuspectHostError(absl::FailedPreconditionError("no GPU"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "no GPU");
  EXPECT_EQ(ExitCodeOf(status), kRankSuspectHost);
}

}  // namespace
}  // namespace lasp::worker
