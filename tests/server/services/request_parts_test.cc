// The small parts requests and answers are made of.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_conversion.h"
#include "server/job_fields.h"
#include "server/job_list.h"
#include "server/job_order.h"
#include "server/log_cursor.h"
#include "server/request_id.h"
#include "server/valid_utf8.h"
#include "server/wire_status.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

v1::TrainingJob NewJob(const std::string& id, const std::string& display_name, int64_t created) {
  v1::TrainingJob job;
  job.set_name("projects/default/trainingJobs/" + id);
  job.set_display_name(display_name);
  job.mutable_create_time()->set_seconds(created);
  job.mutable_update_time()->set_seconds(-created);
  return job;
}

std::string NamesInOrder(const std::string& order_by) {
  const auto order = JobOrder::Parse(order_by);
  EXPECT_TRUE(order.ok()) << order.status();
  std::vector<v1::TrainingJob> jobs = {NewJob("b", "x", 1), NewJob("a", "x", 2),
                                       NewJob("c", "w", 1)};
  std::sort(jobs.begin(), jobs.end(), [&order](const auto& a, const auto& b) {
    return order->Before(order->KeyOf(a), order->KeyOf(b));
  });
  std::string names;
  for (const auto& job : jobs) {
    names += job.name().back();
  }
  return names;
}

TEST(JobOrderTest, OrdersByOneFieldAndThenByName) {
  EXPECT_EQ(NamesInOrder(""), "acb");
  EXPECT_EQ(NamesInOrder("create_time"), "bca");
  EXPECT_EQ(NamesInOrder("create_time desc"), "acb");
  EXPECT_EQ(NamesInOrder("update_time"), "abc");
  EXPECT_EQ(NamesInOrder("name"), "abc");
  EXPECT_EQ(NamesInOrder("name desc"), "cba");
  EXPECT_EQ(NamesInOrder("display_name asc"), "cab");
}

TEST(JobOrderTest, RefusesOtherFields) {
  for (const char* bad : {"loss", "name down", "name desc desc", "name,create_time", "desc"}) {
    EXPECT_THAT(JobOrder::Parse(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("order_by")))
        << bad;
  }
}

TEST(LogCursorTest, TravelsAsAToken) {
  LogCursor cursor;
  cursor.offsets[{1, 0}] = 17;
  cursor.offsets[{2, 3}] = int64_t{1} << 40;
  const auto back = LogCursor::FromToken(cursor.ToToken("uid-1"), "uid-1");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->offsets, cursor.offsets);
  EXPECT_THAT(LogCursor::FromToken(cursor.ToToken("uid-1"), "uid-2"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("resume_token")));
  for (const char* junk : {"", "x", "%%", "bG9nczE=", "bG9nczEgdWlkLTEgMS4w"}) {
    EXPECT_EQ(LogCursor::FromToken(junk, "uid-1").status().code(),
              absl::StatusCode::kInvalidArgument)
        << junk;
  }
}

TEST(ValidUtf8Test, KeepsTextAndReplacesTheRest) {
  EXPECT_EQ(ValidUtf8("loss 2.7 — größer 模 😀"), "loss 2.7 — größer 模 😀");
  EXPECT_EQ(ValidUtf8("a\xff"
                      "b"),
            "a\xef\xbf\xbd"
            "b");
  EXPECT_EQ(ValidUtf8("\xc0\xaf"), "\xef\xbf\xbd\xef\xbf\xbd");  // overlong
  EXPECT_EQ(ValidUtf8("\xed\xa0\x80").size(), 9U);               // a surrogate
  EXPECT_EQ(ValidUtf8("\xe6\xa8"), "\xef\xbf\xbd\xef\xbf\xbd");  // cut short
  EXPECT_EQ(ValidUtf8("\xf4\x90\x80\x80").size(), 12U);          // beyond U+10FFFF
}

TEST(JobFieldsTest, LimitsNamesAndLabels) {
  v1::TrainingJob job;
  job.set_display_name(std::string(128, 'n'));
  (*job.mutable_labels())["team"] = std::string(256, 'v');
  EXPECT_TRUE(CheckJobFields(job).empty());
  // Characters count, not bytes.
  std::string umlauts;
  for (int i = 0; i < 128; ++i) {
    umlauts += "ä";
  }
  job.set_display_name(umlauts);
  EXPECT_TRUE(CheckJobFields(job).empty());

  job.set_display_name(std::string(129, 'n'));
  (*job.mutable_labels())["Team"] = "x";
  (*job.mutable_labels())["team"] = std::string(257, 'v');
  EXPECT_EQ(CheckJobFields(job).size(), 3U);
  job.clear_labels();
  job.set_display_name("red \x1b[31m");
  ASSERT_EQ(CheckJobFields(job).size(), 1U);
  EXPECT_THAT(CheckJobFields(job)[0].description, HasSubstr("control character"));
  job.clear_display_name();
  for (int i = 0; i < 65; ++i) {
    (*job.mutable_labels())[absl::StrCat("k", i)] = "";
  }
  ASSERT_EQ(CheckJobFields(job).size(), 1U);
  EXPECT_EQ(CheckJobFields(job)[0].field, "labels");
}

TEST(RequestIdTest, IsAUuidOrAbsent) {
  LASP_EXPECT_OK(CheckRequestId(""));
  LASP_EXPECT_OK(CheckRequestId("123e4567-e89b-42d3-a456-426614174000"));
  for (const char* bad :
       {"1", "123e4567-e89b-42d3-a456-42661417400g", "123e4567e89b42d3a456426614174000",
        "123e4567-e89b-42d3-a456-4266141740001"}) {
    EXPECT_THAT(CheckRequestId(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UUID")))
        << bad;
  }
}

TEST(WireStatusTest, LeavesSmallErrorsAlone) {
  const absl::Status status = InvalidFields({{"spec.model.heads", "is 0: at least 1"}});
  const absl::Status back = FromGrpcStatus(ToWireStatus(status));
  EXPECT_EQ(back.message(), status.message());
  EXPECT_EQ(FieldViolations(back).size(), 1U);
}

TEST(WireStatusTest, FitsTheTrailersOfAnyClient) {
  std::vector<FieldViolation> violations;
  violations.reserve(500);
  for (int i = 0; i < 500; ++i) {
    violations.push_back({absl::StrCat("spec.data.train_paths[", i, "]"), std::string(900, 'x')});
  }
  violations[0].description = "ü" + std::string(3'000, 'y');
  const grpc::Status wire = ToWireStatus(InvalidFields(violations));
  EXPECT_LT(wire.error_details().size() * 4 / 3 + wire.error_message().size() * 3, 8'192U);
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(back.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(back), "INVALID_SPEC");
  EXPECT_GE(FieldViolations(back).size(), 4U);
  EXPECT_LT(FieldViolations(back).size(), 500U);
}

TEST(WireStatusTest, EveryErrorCarriesAReason) {
  EXPECT_EQ(ErrorReason(FromGrpcStatus(ToWireStatus(absl::NotFoundError("gone")))), "NOT_FOUND");
  EXPECT_TRUE(ToWireStatus(absl::OkStatus()).ok());
}

TEST(InProjectTest, ComparesWholeNames) {
  EXPECT_TRUE(InProject("projects/a/trainingJobs/x", "a"));
  EXPECT_TRUE(InProject("projects/a/trainingJobs/x", "-"));
  EXPECT_FALSE(InProject("projects/ab/trainingJobs/x", "a"));
  EXPECT_FALSE(InProject("projects/a/trainingJobs/x", "ab"));
}

}  // namespace
}  // namespace lasp::server
