#include "server/watch_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/rpc/error_details.h"
#include "tests/server/core/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class WatchHubTest : public ::testing::Test {
 protected:
  void Put(int64_t id, const std::string& message = "") {
    auto view = std::make_shared<JobView>();
    view->id = id;
    view->revision = ++revision_;
    view->job.set_name("job-" + std::to_string(id));
    view->job.set_uid("uid-" + std::to_string(id));
    view->job.set_message(message);
    catalog_.Publish(std::move(view));
    hub_.Notify();
  }

  void Delete(int64_t id) {
    catalog_.Delete("uid-" + std::to_string(id), ++revision_);
    hub_.Notify();
  }

  std::unique_ptr<Watch> Subscribe(const std::string& token = "") {
    return hub_.Subscribe(token, [this] { ++wakes_; }).value();
  }

  // What a batch tells, in short: "+job-1", "-job-2", "bookmark", "end"; the reason of an error.
  static std::vector<std::string> Tell(const absl::StatusOr<WatchBatch>& batch) {
    if (!batch.ok()) {
      return {ErrorReason(batch.status())};
    }
    std::vector<std::string> events;
    events.reserve(batch->changes.size() + 1);
    for (const JobChange& change : batch->changes) {
      events.push_back(change.job != nullptr ? "+" + change.job->job.name()
                                             : "-" + change.deleted_name);
    }
    if (batch->bookmark) {
      events.emplace_back(batch->snapshot_end ? "end" : "bookmark");
    }
    return events;
  }

  testing::FakeClock clock_;
  JobCatalog catalog_;
  WatchHub hub_{&catalog_, "store", &clock_, absl::Seconds(30)};
  int64_t revision_ = 100;
  int wakes_ = 0;
};

TEST_F(WatchHubTest, SnapshotThenChanges) {
  Put(1);
  Put(2);
  Delete(2);
  Put(3);
  auto watch = Subscribe();
  EXPECT_THAT(Tell(watch->Next(10)), ElementsAre("+job-1", "+job-3", "end"));
  EXPECT_THAT(Tell(watch->Next(10)), IsEmpty());
  Put(4);
  Delete(1);
  EXPECT_EQ(wakes_, 1) << "told once until it has looked";
  EXPECT_THAT(Tell(watch->Next(10)), ElementsAre("+job-4", "-job-1"));
}

TEST_F(WatchHubTest, TheSnapshotComesInPages) {
  for (int i = 1; i <= 5; ++i) {
    Put(i);
  }
  auto watch = Subscribe();
  EXPECT_THAT(Tell(watch->Next(2)), ElementsAre("+job-1", "+job-2"));
  Put(1);
  EXPECT_THAT(Tell(watch->Next(2)), ElementsAre("+job-3", "+job-4"));
  EXPECT_THAT(Tell(watch->Next(2)), ElementsAre("+job-5", "+job-1"));
  EXPECT_THAT(Tell(watch->Next(2)), ElementsAre("end"));
}

TEST_F(WatchHubTest, ChangesOfOneJobComeOnce) {
  Put(1);
  auto watch = Subscribe();
  LASP_ASSERT_OK(watch->Next(10));
  for (int i = 0; i < 1'000; ++i) {
    Put(1, std::to_string(i));
    Put(2, std::to_string(i));
  }
  const auto batch = watch->Next(10);
  EXPECT_THAT(Tell(batch), ElementsAre("+job-1", "+job-2"));
  EXPECT_EQ(batch->changes[0].job->job.message(), "999");
}

TEST_F(WatchHubTest, ATokenLosesNothing) {
  Put(1);
  auto watch = Subscribe();
  const std::string token = watch->Next(10)->resume_token;
  watch = nullptr;
  Put(2);
  Delete(1);
  watch = Subscribe(token);
  EXPECT_THAT(Tell(watch->Next(10)), ElementsAre("+job-2", "-job-1"));
  // The token of one change inside a batch.
  watch = Subscribe(hub_.ResumeToken(revision_ - 1));
  EXPECT_THAT(Tell(watch->Next(10)), ElementsAre("-job-1"));
}

TEST_F(WatchHubTest, TokensThatAreTooOldOrForeignAreRefused) {
  Put(1);
  const std::string old = hub_.ResumeToken(revision_);
  for (int i = 2; i < 10; ++i) {
    Put(i);
    Delete(i);
  }
  EXPECT_EQ(catalog_.tombstone_count(), 8);
  catalog_.Compact(catalog_.CompactionPoint(3));
  EXPECT_EQ(catalog_.tombstone_count(), 3);
  const auto expired = hub_.Subscribe(old, nullptr);
  EXPECT_THAT(expired, StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("list the jobs again")));
  EXPECT_EQ(ErrorReason(expired.status()), "RESUME_TOKEN_EXPIRED");
  LASP_EXPECT_OK(hub_.Subscribe(hub_.ResumeToken(catalog_.compacted_revision()), nullptr));

  WatchHub other(&catalog_, "other", &clock_, absl::Seconds(30));
  EXPECT_THAT(other.Subscribe(hub_.ResumeToken(revision_), nullptr),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("")));
  for (const char* token : {"x", "!!!", "c3RvcmU6LTE", "c3RvcmU"}) {
    EXPECT_THAT(hub_.Subscribe(token, nullptr),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("resume_token")))
        << token;
  }
}

TEST_F(WatchHubTest, AWatchThatMissedForgottenDeletionsIsTold) {
  for (int i = 1; i <= 9; ++i) {
    Put(i);
  }
  auto idle = Subscribe();
  auto behind = Subscribe();
  auto midway = Subscribe();
  LASP_ASSERT_OK(idle->Next(20));
  LASP_ASSERT_OK(behind->Next(20));
  EXPECT_THAT(Tell(midway->Next(2)), ElementsAre("+job-1", "+job-2"));
  for (int i = 1; i <= 4; ++i) {
    Delete(i);
  }
  LASP_ASSERT_OK(idle->Next(20));
  catalog_.Compact(catalog_.CompactionPoint(2));
  EXPECT_THAT(Tell(behind->Next(20)), ElementsAre("RESUME_TOKEN_EXPIRED"));
  EXPECT_THAT(Tell(midway->Next(20)), ElementsAre("RESUME_TOKEN_EXPIRED"));
  // Those that have seen them go on, and so does a snapshot of after them.
  auto later = Subscribe();
  EXPECT_THAT(Tell(later->Next(2)), ElementsAre("+job-5", "+job-6"));
  Delete(5);
  EXPECT_THAT(Tell(idle->Next(20)), ElementsAre("-job-5"));
  EXPECT_THAT(Tell(later->Next(20)), ElementsAre("+job-7", "+job-8", "+job-9", "-job-5", "end"));
}

TEST_F(WatchHubTest, IdleWatchesGetBookmarks) {
  auto watch = Subscribe();
  LASP_ASSERT_OK(watch->Next(10));
  EXPECT_THAT(Tell(watch->Next(10)), IsEmpty());
  clock_.Advance(absl::Seconds(29));
  hub_.Tick();
  EXPECT_EQ(wakes_, 0);
  clock_.Advance(absl::Seconds(2));
  hub_.Tick();
  EXPECT_EQ(wakes_, 1);
  EXPECT_THAT(Tell(watch->Next(10)), ElementsAre("bookmark"));
  EXPECT_THAT(Tell(watch->Next(10)), IsEmpty());
  hub_.Tick();
  EXPECT_EQ(wakes_, 1);
}

TEST_F(WatchHubTest, NothingIsSaidToAWatchThatIsGone) {
  auto watch = Subscribe();
  LASP_ASSERT_OK(watch->Next(10));
  LASP_ASSERT_OK(watch->Next(10));
  watch = nullptr;
  Put(1);
  EXPECT_EQ(wakes_, 0);
  EXPECT_EQ(hub_.watch_count(), 0);
}

TEST_F(WatchHubTest, TheCatalogueIsReadByNameAgeAndUid) {
  for (int i = 1; i <= 5; ++i) {
    Put(i);
  }
  EXPECT_EQ(catalog_.Find("job-3")->id, 3);
  EXPECT_EQ(catalog_.FindByUid("uid-3")->id, 3);
  EXPECT_EQ(catalog_.Find("job-9"), nullptr);
  std::vector<int64_t> ids;
  int64_t before = INT64_MAX;
  while (true) {
    const auto page = catalog_.CreatedBefore(before, 2);
    for (const JobViewPtr& view : page) {
      ids.push_back(view->id);
      before = view->id;
    }
    if (page.size() < 2) {
      break;
    }
  }
  EXPECT_THAT(ids, ElementsAre(5, 4, 3, 2, 1));
  EXPECT_EQ(catalog_.All().size(), 5);
  EXPECT_EQ(catalog_.revision(), revision_);
}

}  // namespace
}  // namespace lasp::server
