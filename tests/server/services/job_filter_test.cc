#include "server/job_filter.h"

#include "proto/rpc/proto_time.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using v1::TrainingJob;

TrainingJob Job() {
  TrainingJob job;
  job.set_name("projects/default/trainingJobs/first");
  job.set_display_name("a \"quoted\" name");
  job.set_state(TrainingJob::STATE_RUNNING);
  (*job.mutable_labels())["team"] = "nlp";
  absl::Time time;
  std::string ignored;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, "2026-11-21T20:00:00Z", &time, &ignored));
  *job.mutable_create_time() = ToProtoTime(time);
  return job;
}

bool Matches(const std::string& text) {
  const auto filter = JobFilter::Parse(text);
  EXPECT_TRUE(filter.ok()) << text << ": " << filter.status();
  return filter.ok() && filter->Matches(Job());
}

TEST(JobFilterTest, SelectsByEveryFieldAndOperator) {
  EXPECT_TRUE(Matches(""));
  EXPECT_TRUE(Matches("  "));
  EXPECT_TRUE(Matches("state=RUNNING"));
  EXPECT_TRUE(Matches("state = STATE_RUNNING"));
  EXPECT_FALSE(Matches("state!=RUNNING"));
  EXPECT_FALSE(Matches("state=QUEUED"));
  EXPECT_TRUE(Matches("display_name=\"a \\\"quoted\\\" name\""));
  EXPECT_FALSE(Matches("display_name=other"));
  EXPECT_TRUE(Matches("name=projects/default/trainingJobs/first"));
  EXPECT_TRUE(Matches("labels.team=\"nlp\""));
  EXPECT_FALSE(Matches("labels.team!=nlp"));
  EXPECT_FALSE(Matches("labels.cost=high"));
  EXPECT_TRUE(Matches("labels.cost!=high"));
}

TEST(JobFilterTest, OrdersTimes) {
  EXPECT_TRUE(Matches("create_time=2026-11-21T20:00:00Z"));
  EXPECT_TRUE(Matches("create_time=\"2026-11-21T21:00:00+01:00\""));
  EXPECT_FALSE(Matches("create_time!=2026-11-21T20:00:00Z"));
  EXPECT_TRUE(Matches("create_time<2026-11-21T20:00:01Z"));
  EXPECT_FALSE(Matches("create_time<2026-11-21T20:00:00Z"));
  EXPECT_TRUE(Matches("create_time<=2026-11-21T20:00:00Z"));
  EXPECT_TRUE(Matches("create_time>2026-11-21T19:59:59Z"));
  EXPECT_TRUE(Matches("create_time>=2026-11-21T20:00:00Z"));
  EXPECT_FALSE(Matches("create_time>=2026-11-21T20:00:01Z"));
}

TEST(JobFilterTest, TermsAreJoinedByAnd) {
  EXPECT_TRUE(Matches("state=RUNNING AND labels.team=\"nlp\" AND display_name!=x"));
  EXPECT_FALSE(Matches("state=RUNNING AND labels.team=\"vision\""));
}

TEST(JobFilterTest, ErrorsNameTheColumn) {
  const struct {
    std::string text;
    std::string expected;
  } kCases[] = {
      {"color=red", "column 1: expected a field"},
      {"state", "column 6: expected an operator"},
      {"state=", "column 7: expected a value"},
      {"state=ASLEEP", "column 7: no such state"},
      {"state=UNSPECIFIED", "column 7: no such state"},
      {"state<RUNNING", "column 6: only create_time has an order"},
      {"state=RUNNING OR state=QUEUED", "column 15: expected AND"},
      {"state=RUNNING AND ", "column 19: expected a field"},
      {"labels.Team=x", "column 8: expected a label's key"},
      {"labels.=x", "column 8: expected a label's key"},
      {"display_name=\"open", "column 14: this quote is never closed"},
      {"display_name=\"open\\", "column 14: this quote is never closed"},
      {"create_time>yesterday", "column 13: expected a time"},
      {"name=first", "column 6: expected a full name"},
      {std::string(3'000, 'x'), "at most 2000 characters"},
  };

  for (const auto& bad : kCases) {
    EXPECT_THAT(JobFilter::Parse(bad.text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.expected)))
        << bad.text;
  }
}

TEST(JobFilterTest, TermsAreBounded) {
  std::string text = "state=RUNNING";
  for (int i = 1; i < 32; ++i) {
    text += " AND state=RUNNING";
  }
  EXPECT_TRUE(JobFilter::Parse(text).ok());
  EXPECT_THAT(JobFilter::Parse(text + " AND state=RUNNING"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("more than 32")));
}

}  // namespace
}  // namespace lasp::server
