#include "server/hello_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/version.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

absl::Status Check(const std::function<void(lasp::v1::Hello*)>& change) {
  lasp::v1::Hello hello;
  hello.set_worker_id("host-a");
  hello.set_incarnation(NewUuid());
  hello.set_protocol_version(kWorkerProtocolVersion);
  hello.add_slots()->set_index(0);
  hello.add_slots()->set_index(1);
  change(&hello);
  return CheckHello(hello);
}

TEST(HelloCheckTest, AnAgentOfAnotherReleaseIsToldWhatToInstall) {
  LASP_EXPECT_OK(Check([](auto*) {}));
  const absl::Status other = Check([](auto* h) { h->set_protocol_version(99); });
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("99")));
  EXPECT_EQ(ErrorReason(other), "PROTOCOL_VERSION_MISMATCH");
}

TEST(HelloCheckTest, EveryViolationIsTold) {
  const absl::Status wrong = Check([](auto* h) {
    h->set_worker_id("no/slash");
    h->set_incarnation("first");
    h->set_host_name(std::string(300, 'h'));
    h->mutable_slots(1)->set_index(0);
  });
  EXPECT_EQ(ErrorReason(wrong), "INVALID_HELLO");
  for (const char* field : {"worker_id", "incarnation", "host_name", "slots"}) {
    EXPECT_THAT(wrong.ToString(), HasSubstr(field));
  }
  EXPECT_THAT(Check([](auto* h) { h->mutable_slots(0)->set_index(-1); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("slots")));
  EXPECT_THAT(Check([](auto* h) {
                for (int i = 2; i < 1'025; ++i) {
                  h->add_slots()->set_index(i);
                }
              }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1025")));
}

}  // namespace
}  // namespace lasp::server
