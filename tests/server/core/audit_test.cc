// The audit log: every change has its record, stored with it; refusals are few.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proto/rpc/error_details.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AuditQuery OfResource(const std::string& resource, const std::string& principal = "") {
  AuditQuery query;
  query.resource = resource;
  query.principal = principal;
  return query;
}

AuditQuery Within(absl::Time start, absl::Time end) {
  AuditQuery query;
  query.start = start;
  query.end = end;
  return query;
}

AuditQuery Refused(bool only = true) {
  AuditQuery query;
  query.refusals_only = only;
  return query;
}

class AuditTest : public ::testing::Test {
 protected:
  AuditTest() {
    harness_.caller = {.principal = "ann", .role = "editor", .peer = "ipv4:192.0.2.1"};
  }

  std::vector<lasp::v1::AuditRecord> Read(const AuditQuery& query = {}, int limit = 100) {
    return harness_.store->ReadAudit(query, limit).value().records;
  }

  // `who what resource`, newest first.
  std::vector<std::string> Told(const AuditQuery& query = {}) {
    const auto records = Read(query);
    std::vector<std::string> told;
    told.reserve(records.size());
    for (const auto& record : records) {
      told.push_back(
          absl::StrCat(record.principal(), " ", record.method(), " ", record.resource()));
    }
    return told;
  }

  EngineHarness harness_;
};

TEST_F(AuditTest, EveryChangeIsStoredWithItsCaller) {
  harness_.AddAgent("w1", 1);
  const std::string job = harness_.Submit("a");
  harness_.caller = {.principal = "root", .role = "admin", .peer = "ipv4:192.0.2.2"};
  LASP_EXPECT_OK(harness_.Drain("w1"));
  LASP_EXPECT_OK(harness_.Drain("w1", /*undo=*/true));
  LASP_EXPECT_OK(harness_.Cancel(job));
  harness_.ExitAll(job, 137);
  LASP_EXPECT_OK(harness_.Cancel(job)) << "changes nothing, so it leaves no record";
  LASP_EXPECT_OK(harness_.Delete(job));
  // What a crash leaves is what there was.
  harness_.Crash();
  EXPECT_THAT(Told(), ElementsAre("root TrainingJobService.DeleteTrainingJob " + job,
                                  "root TrainingJobService.CancelTrainingJob " + job,
                                  "root WorkerAdminService.DrainWorker workers/w1",
                                  "root WorkerAdminService.DrainWorker workers/w1",
                                  "ann TrainingJobService.CreateTrainingJob " + job));
  const auto records = Read();
  EXPECT_EQ(records[2].detail(), "undo");
  EXPECT_EQ(records[4].role(), "editor");
  EXPECT_EQ(records[4].peer(), "ipv4:192.0.2.1");
  EXPECT_FALSE(records[4].uid().empty());
  EXPECT_EQ(records[4].uid(), records[0].uid());
  EXPECT_EQ(records[4].count(), 1);
}

TEST_F(AuditTest, TransitionsNameTheCaller) {
  const std::string job = harness_.Submit("a");
  harness_.caller.principal = "bob";
  LASP_EXPECT_OK(harness_.Suspend(job));
  LASP_EXPECT_OK(harness_.Resume(job));
  std::vector<std::string> actors;
  const auto transitions = harness_.store->Transitions(harness_.jobs->Find(job)->id, 10).value();
  actors.reserve(transitions.size());
  for (const auto& transition : transitions) {
    actors.push_back(transition.actor());
  }
  EXPECT_THAT(actors, ElementsAre("user/ann", "user/bob", "user/bob"));
}

TEST_F(AuditTest, TheSameRequestAgainIsNoChange) {
  const std::string job = harness_.Submit("a");
  const std::string id = "6d0a9c9e-8b1f-4c8e-9a0e-0f2f6f1f7a11";
  LASP_EXPECT_OK(harness_.Suspend(job, id));
  LASP_EXPECT_OK(harness_.Suspend(job, id));
  EXPECT_THAT(Told(), SizeIs(2));
}

TEST_F(AuditTest, RecordsAreSelectedAndPaged) {
  for (const char* id : {"a", "ab", "c"}) {
    harness_.Submit(id);
    harness_.clock.Advance(absl::Minutes(1));
  }
  const absl::Time middle = harness_.clock.Now() - absl::Minutes(2);
  harness_.caller.principal = "bob";
  LASP_EXPECT_OK(harness_.Cancel(harness_.Name("a")));
  const std::string create = "ann TrainingJobService.CreateTrainingJob ";
  const std::string cancel = "bob TrainingJobService.CancelTrainingJob ";
  EXPECT_THAT(Told(OfResource(harness_.Name("a"))),
              ElementsAre(cancel + harness_.Name("a"), create + harness_.Name("a")));
  EXPECT_THAT(Told(OfResource("projects/default", "bob")),
              ElementsAre(cancel + harness_.Name("a")));
  EXPECT_THAT(Told(OfResource("projects/def")), IsEmpty());
  EXPECT_THAT(Told(Within(middle, absl::InfiniteFuture())), SizeIs(3));
  EXPECT_THAT(Told(Within(absl::InfinitePast(), middle)), ElementsAre(create + harness_.Name("a")));

  AuditQuery query;
  std::vector<std::string> all;
  all.reserve(4);
  for (int pages = 0; pages < 4; ++pages) {
    const AuditPage page = harness_.store->ReadAudit(query, 1).value();
    ASSERT_THAT(page.records, SizeIs(1));
    all.push_back(page.records[0].resource());
    EXPECT_EQ(page.last, pages == 3);
    query.before = page.next;
  }
  EXPECT_THAT(all, ElementsAre(harness_.Name("a"), harness_.Name("c"), harness_.Name("ab"),
                               harness_.Name("a")));
}

TEST_F(AuditTest, RefusalsLieAmongTheChanges) {
  harness_.Submit("a");
  harness_.clock.Advance(absl::Seconds(1));
  harness_.refusals->Add(
      {.principal = "eve", .role = "viewer", .peer = "ipv4:192.0.2.9"},
      "TrainingJobService.CancelTrainingJob", harness_.Name("a"),
      ErrorWithReason(absl::StatusCode::kPermissionDenied, "no", "ROLE_TOO_LOW"));
  harness_.Advance(absl::Seconds(2));
  harness_.Submit("b");
  EXPECT_THAT(Told(),
              ElementsAre("ann TrainingJobService.CreateTrainingJob " + harness_.Name("b"),
                          "eve TrainingJobService.CancelTrainingJob " + harness_.Name("a"),
                          "ann TrainingJobService.CreateTrainingJob " + harness_.Name("a")));
  const auto refused = Read(Refused());
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_EQ(refused[0].code(), static_cast<int>(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(refused[0].reason(), "ROLE_TOO_LOW");
}

TEST(AuditRetentionTest, RetentionIsRecordedAndTheLogIsBounded) {
  CoreOptions options;
  options.retain_finished = absl::Minutes(5);
  options.retain_audit = absl::Hours(1);
  options.max_audit_records = 20;
  EngineHarness harness(options);
  const auto count = [&harness](bool refused) {
    return harness.store->ReadAudit(Refused(refused), 500).value().records.size();
  };
  const std::string job = harness.Submit("first");
  LASP_EXPECT_OK(harness.Cancel(job));
  harness.Advance(absl::Minutes(7));
  const auto newest = harness.store->ReadAudit({}, 1).value().records;
  ASSERT_THAT(newest, SizeIs(1));
  EXPECT_EQ(newest[0].principal(), "coordinator");
  EXPECT_EQ(newest[0].method(), "retention");
  EXPECT_EQ(newest[0].resource(), job);

  for (int i = 0; i < 40; ++i) {
    LASP_EXPECT_OK(harness.Cancel(harness.Submit(absl::StrCat("job-", i))));
    harness.refusals->Add({.principal = absl::StrCat("eve-", i)}, "m", "r",
                          absl::PermissionDeniedError("no"));
  }
  harness.Advance(absl::Minutes(3));
  EXPECT_EQ(count(false) - count(true), 20) << "whoever is refused drives no change out";
  EXPECT_EQ(count(true), 2);
  harness.Advance(absl::Hours(1) + absl::Minutes(7));
  EXPECT_EQ(count(false), 0);
}

}  // namespace
}  // namespace lasp::server
