// Status on the wire, names, and what of the transport policy can be told without a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/synchronization/mutex.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/hmac.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_conversion.h"
#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

// RFC 4231, test cases 2 and 6.
TEST(HmacTest, IsHmacSha256) {
  EXPECT_EQ(absl::BytesToHexString(Hmac("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(absl::BytesToHexString(Hmac(std::string(131, '\xaa'),
                                        "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  EXPECT_TRUE(SameSecret(Hmac("a", "b"), Hmac("a", "b")));
  EXPECT_FALSE(SameSecret(Hmac("a", "b"), Hmac("b", "b")));
  EXPECT_FALSE(SameSecret("a", "ab"));
}

TEST(StatusConversionTest, EveryCodeSurvivesTheWire) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what is wrong");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    const absl::Status back = FromGrpcStatus(wire);
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(back.message(), status.message());
    // Every error that leaves the server carries a reason.
    EXPECT_EQ(ErrorReason(back), absl::StatusCodeToString(status.code()));
  }
  LASP_EXPECT_OK(FromGrpcStatus(ToGrpcStatus(absl::OkStatus())));
}

TEST(StatusConversionTest, DetailsSurviveTheWire) {
  const absl::Status status =
      InvalidFields({{"spec.model.heads", "is 3: choose 4"}, {"spec.max_steps", "is 0"}});
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
  EXPECT_THAT(back, StatusIs(absl::StatusCode::kInvalidArgument,
                             "spec.model.heads: is 3: choose 4 (and 1 more)"));
  EXPECT_EQ(ErrorReason(back), "INVALID_SPEC");
  const std::vector<FieldViolation> violations = FieldViolations(back);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[1].field, "spec.max_steps");
  EXPECT_EQ(violations[1].description, "is 0");
}

TEST(StatusConversionTest, OneReasonIsKeptAsItIs) {
  const absl::Status status = ErrorWithReason(absl::StatusCode::kFailedPrecondition, "too old",
                                              "STALE_GENERATION", {{"generation", "3"}});
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
  EXPECT_EQ(ErrorReason(back), "STALE_GENERATION");
  google::rpc::Status proto = StatusToProto(back);
  ASSERT_EQ(proto.details_size(), 1);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(info.ParseFromString(proto.details(0).value()));
  EXPECT_EQ(info.domain(), "lasp.dev");
  EXPECT_EQ(info.metadata().at("generation"), "3");
}

TEST(StatusConversionTest, AForeignStatusKeepsCodeAndMessage) {
  EXPECT_THAT(FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "no server"}),
              StatusIs(absl::StatusCode::kUnavailable, "no server"));
  EXPECT_THAT(FromGrpcStatus({grpc::StatusCode::INTERNAL, "odd", "not a proto \xff"}),
              StatusIs(absl::StatusCode::kInternal, "odd"));
}

TEST(ResourceNameTest, JobNamesRoundTrip) {
  const auto name = ParseJobName("projects/default/trainingJobs/a-1");
  LASP_ASSERT_OK(name);
  EXPECT_EQ(name->project, "default");
  EXPECT_EQ(name->job, "a-1");
  EXPECT_EQ(name->ToString(), "projects/default/trainingJobs/a-1");
}

TEST(ResourceNameTest, OtherFormsAreRefused) {
  for (const char* bad :
       {"", "a", "projects/default", "projects/default/trainingJobs/", "projects//trainingJobs/a",
        "projects/default/trainingJobs/A", "projects/default/trainingJobs/a/b",
        "projects/default/trainingjobs/a", "/projects/default/trainingJobs/a",
        "projects/-/trainingJobs/a", "projects/default/trainingJobs/a\n",
        "projects/default/trainingJobs/.."}) {
    EXPECT_THAT(ParseJobName(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("projects/{project}/trainingJobs/{job}")))
        << bad;
  }
}

TEST(ResourceNameTest, IdsAreDnsLabelsThatStartWithALetter) {
  for (const std::string& good :
       {std::string("a"), std::string("a1"), std::string("a-b"), std::string(63, 'a')}) {
    EXPECT_TRUE(IsValidId(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("1a"), std::string("-a"), std::string("a-"), std::string("a_b"),
        std::string("A"), std::string("a.b"), std::string("\xc3\xa4"), std::string(64, 'a'),
        std::string("a\0b", 3)}) {
    EXPECT_FALSE(IsValidId(bad)) << bad;
  }
}

TEST(ResourceNameTest, ProjectsAndTheirWildcard) {
  EXPECT_EQ(*ParseProjectName("projects/default"), "default");
  EXPECT_EQ(*ParseProjectName("projects/-", true), "-");
  EXPECT_FALSE(ParseProjectName("projects/-").ok());
  EXPECT_FALSE(ParseProjectName("default").ok());
}

TEST(ResourceNameTest, WorkersAreHostNames) {
  EXPECT_EQ(*ParseWorkerName("workers/gpu-01.example.org"), "gpu-01.example.org");
  for (const char* bad : {"workers/", "workers/-a", "workers/a/b", "workers/a b", "gpu-01"}) {
    EXPECT_FALSE(ParseWorkerName(bad).ok()) << bad;
  }
}

TEST(RandomIdTest, IdsAreValidAndDiffer) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(IsValidId(NewIdSuffix(8)));
  }
  const std::string uuid = NewUuid();
  ASSERT_EQ(uuid.size(), 36u);
  EXPECT_EQ(uuid[14], '4');
  EXPECT_NE(uuid, NewUuid());
}

TEST(ChannelTest, OnlyLoopbackAddressesAreLoopback) {
  for (const char* address : {"localhost:7070", "127.0.0.1:0", "127.1.2.3:7070", "[::1]:7070"}) {
    EXPECT_TRUE(IsLoopbackAddress(address)) << address;
  }
  for (const char* address : {"0.0.0.0:7070", "[::]:7070", "10.0.0.1:7070", "example.org:1",
                              "localhost.example.org:1", "", ":7070"}) {
    EXPECT_FALSE(IsLoopbackAddress(address)) << address;
  }
  // A name that merely begins like one resolves to wherever its owner likes.
  EXPECT_FALSE(IsLoopbackAddress("127.0.0.1.example.org:7070"));
}

// Abseil's graph of locks would end this process: two are taken in both orders.
TEST(PrepareGrpcDeathTest, AbseilDoesNotWatchItsLocks) {
  const auto lock_in_both_orders = [] {
    absl::Mutex first;
    absl::Mutex second;
    for (absl::Mutex* outer : {&first, &second}) {
      absl::Mutex* const inner = outer == &first ? &second : &first;
      const absl::MutexLock outer_lock(outer);
      const absl::MutexLock inner_lock(inner);
    }
  };
  EXPECT_EXIT(
      {
        absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kAbort);
        PrepareGrpc();
        lock_in_both_orders();
        std::exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace lasp
