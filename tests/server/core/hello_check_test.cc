#include "server/hello_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/random_id.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

absl::Status Check(const std::function<void(lasp::v1::Hello*)>& change) {
  lasp::v1::Hello hello;
  hello.set_worker_id("host-a");
  hello.set_incarnation(NewUuid());
  hello.set_protocol_version(kWorkerProtocol.oldest);
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

TEST(HelloCheckTest, AGpuIsDescribedWithinBounds) {
  const auto with_gpu = [](const std::function<void(lasp::v1::Gpu*)>& change) {
    return Check([&change](auto* h) {
      for (int i = 0; i < 2; ++i) {
        auto* slot = h->mutable_slots(i);
        slot->set_kind(lasp::v1::Slot::KIND_GPU);
        slot->mutable_gpu()->set_uuid(absl::StrCat("GPU-", i));
        slot->mutable_gpu()->add_links()->set_slot(1 - i);
      }
      change(h->mutable_slots(1)->mutable_gpu());
    });
  };
  LASP_EXPECT_OK(with_gpu([](auto*) {}));
  for (const auto& change : std::vector<std::function<void(lasp::v1::Gpu*)>>{
           [](auto* gpu) { gpu->clear_uuid(); }, [](auto* gpu) { gpu->set_uuid("GPU-0"); },
           [](auto* gpu) { gpu->set_name(std::string(200, 'n')); },
           [](auto* gpu) { gpu->set_memory_bytes(-1); },
           [](auto* gpu) {
             while (gpu->links_size() < 65) {
               gpu->add_links();
             }
           }}) {
    EXPECT_THAT(with_gpu(change),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("hello.slots[1].gpu")));
  }
  EXPECT_THAT(
      Check([](auto* h) { h->mutable_slots(1)->set_kind(static_cast<lasp::v1::Slot::Kind>(9)); }),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown kind 9")));
}

}  // namespace
}  // namespace lasp::server
