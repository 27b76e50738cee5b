// Jobs over the wire: every method of TrainingJobService but Watch.
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "proto/rpc/random_id.h"
#include "tests/server/services/running_server.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::TrainingJob;
using Stub = v1::TrainingJobService::Stub;

constexpr char kUuid[] = "123e4567-e89b-42d3-a456-426614174000";

std::string Id(const TrainingJob& job) { return job.name().substr(job.name().rfind('/') + 1); }

class JobApiTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::ListTrainingJobsResponse> List(const v1::ListTrainingJobsRequest& request) {
    return server_.Call(server_.jobs.get(), &Stub::ListTrainingJobs, request);
  }

  v1::ListTrainingJobsRequest ListRequest(const std::string& filter = "",
                                          const std::string& order_by = "", int page_size = 0) {
    v1::ListTrainingJobsRequest request;
    request.set_parent("projects/default");
    request.set_filter(filter);
    request.set_order_by(order_by);
    request.set_page_size(page_size);
    return request;
  }

  std::vector<std::string> ListIds(const v1::ListTrainingJobsRequest& request) {
    const auto page = List(request);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> ids;
    for (const TrainingJob& job : page->training_jobs()) {
      ids.push_back(Id(job));
    }
    return ids;
  }

  absl::Status Delete(const std::string& id, const std::string& etag = "") {
    v1::DeleteTrainingJobRequest request;
    request.set_name(RunningServer::NameOf(id));
    request.set_etag(etag);
    return server_.Call(server_.jobs.get(), &Stub::DeleteTrainingJob, request).status();
  }

  RunningServer server_;
};

TEST_F(JobApiTest, CreatesAJobWithEveryDefaultWrittenOut) {
  auto request = server_.CreateRequest("first");
  request.mutable_training_job()->set_display_name("First");
  (*request.mutable_training_job()->mutable_labels())["team"] = "nlp";
  const auto created = server_.Create(request);
  LASP_ASSERT_OK(created);
  EXPECT_EQ(created->name(), "projects/default/trainingJobs/first");
  EXPECT_EQ(created->state(), TrainingJob::STATE_QUEUED);
  EXPECT_FALSE(created->uid().empty());
  EXPECT_FALSE(created->etag().empty());
  EXPECT_EQ(created->spec().optimizer().beta2(), 0.95);
  EXPECT_EQ(created->spec().micro_batch_size(), 1);

  const auto got = server_.Get("first");
  LASP_ASSERT_OK(got);
  EXPECT_EQ(got->uid(), created->uid());
  EXPECT_EQ(got->display_name(), "First");
  EXPECT_EQ(got->labels().at("team"), "nlp");
  ASSERT_GE(got->transitions_size(), 1);
  EXPECT_EQ(got->transitions(0).to_state(), TrainingJob::STATE_QUEUED);
  EXPECT_EQ(got->transitions(0).actor(), "user/local");
}

TEST_F(JobApiTest, MakesAnIdWhereNoneIsGiven) {
  const auto created = server_.Create(server_.CreateRequest(""));
  LASP_ASSERT_OK(created);
  LASP_EXPECT_OK(server_.Get(Id(*created)));
}

TEST_F(JobApiTest, ValidateOnlyStoresNothing) {
  auto request = server_.CreateRequest("dry");
  request.set_validate_only(true);
  const auto checked = server_.Create(request);
  LASP_ASSERT_OK(checked);
  EXPECT_EQ(checked->spec().optimizer().beta2(), 0.95);
  EXPECT_THAT(server_.Get("dry"), StatusIs(absl::StatusCode::kNotFound, _));
  request.mutable_training_job()->mutable_spec()->set_max_steps(-1);
  EXPECT_THAT(server_.Create(request), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(JobApiTest, ARepeatedRequestGivesTheSameAnswer) {
  auto request = server_.CreateRequest("");
  request.set_request_id(kUuid);
  const auto first = server_.Create(request);
  LASP_ASSERT_OK(first);
  const auto again = server_.Create(request);
  LASP_ASSERT_OK(again);
  EXPECT_EQ(first->uid(), again->uid());
  request.mutable_training_job()->set_display_name("another");
  EXPECT_THAT(server_.Create(request), StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_EQ(ListIds(ListRequest()).size(), 1U);
}

TEST_F(JobApiTest, ARepeatedRequestIsAnsweredThoughItsDataIsGone) {
  auto request = RunningServer::CreateRequest("once");
  request.set_request_id(kUuid);
  const auto first = server_.Create(request);
  LASP_ASSERT_OK(first);
  std::filesystem::remove(server_.folder().Join("corpus.txt"));
  const auto second = server_.Create(request);
  LASP_ASSERT_OK(second);
  EXPECT_EQ(second->uid(), first->uid());
  // Any other request is told of it.
  request.set_training_job_id("twice");
  request.set_request_id(NewUuid());
  EXPECT_THAT(server_.Create(request), StatusIs(absl::StatusCode::kNotFound, HasSubstr("corpus")));
  request.clear_request_id();
  EXPECT_THAT(server_.Create(request), StatusIs(absl::StatusCode::kNotFound, HasSubstr("corpus")));
}

TEST_F(JobApiTest, TellsEveryViolationAtOnce) {
  auto request = server_.CreateRequest("Bad_Id");
  request.mutable_training_job()->set_display_name(std::string(200, 'x'));
  auto* spec = request.mutable_training_job()->mutable_spec();
  spec->mutable_model()->set_heads(3);
  spec->set_max_steps(0);
  spec->mutable_data()->set_sequence_length(-5);
  const auto refused = server_.Create(request);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument, _));
  std::set<std::string> fields;
  for (const FieldViolation& violation : FieldViolations(refused.status())) {
    fields.insert(violation.field);
  }
  EXPECT_THAT(fields, ::testing::IsSupersetOf({"training_job_id", "display_name", "spec.max_steps",
                                               "spec.data.sequence_length"}));
  EXPECT_THAT(ListIds(ListRequest()), IsEmpty());
}

TEST_F(JobApiTest, RefusesBadRequestsByName) {
  LASP_ASSERT_OK(server_.Create("there"));
  const auto create = [this](const std::function<void(v1::CreateTrainingJobRequest*)>& change) {
    auto request = server_.CreateRequest("new");
    change(&request);
    return server_.Create(request).status();
  };

  const struct {
    absl::Status status;
    absl::StatusCode code;
    std::string names;
  } kCases[] = {
      {create([](auto* r) { r->set_training_job_id("there"); }), absl::StatusCode::kAlreadyExists,
       "there"},
      {create([](auto* r) { r->set_parent("projects/-"); }), absl::StatusCode::kInvalidArgument,
       "projects/"},
      {create([](auto* r) { r->clear_parent(); }), absl::StatusCode::kInvalidArgument, "projects/"},
      {create([](auto* r) { r->set_request_id("1"); }), absl::StatusCode::kInvalidArgument,
       "request_id"},
      {create([](auto* r) { r->set_training_job_id(std::string(64, 'a')); }),
       absl::StatusCode::kInvalidArgument, "training_job_id"},
      {create([](auto* r) { r->clear_training_job(); }), absl::StatusCode::kInvalidArgument,
       "spec."},
      {create([](auto* r) {
         r->mutable_training_job()->mutable_spec()->mutable_data()->set_train_paths(0, "no.txt");
       }),
       absl::StatusCode::kNotFound, "no.txt"},
      {create([](auto* r) {
         r->mutable_training_job()->mutable_spec()->mutable_data()->set_train_paths(0,
                                                                                    "/etc/passwd");
       }),
       absl::StatusCode::kPermissionDenied, "passwd"},
      {create([](auto* r) { (*r->mutable_training_job()->mutable_labels())["UP"] = "x"; }),
       absl::StatusCode::kInvalidArgument, "labels"},
      {server_.Get("absent").status(), absl::StatusCode::kNotFound, "absent"},
      {server_.Get("Not a name").status(), absl::StatusCode::kInvalidArgument,
       "projects/{project}/trainingJobs/{job}"},
      {server_.Get(std::string(100'000, 'n')).status(), absl::StatusCode::kInvalidArgument,
       "projects/{project}"},
      {server_.Cancel("absent").status(), absl::StatusCode::kNotFound, "absent"},
      {Delete("absent"), absl::StatusCode::kNotFound, "absent"},
      {Delete("there"), absl::StatusCode::kFailedPrecondition, "there"},
      {List(ListRequest("", "", -1)).status(), absl::StatusCode::kInvalidArgument, "page_size"},
      {List(ListRequest("state=")).status(), absl::StatusCode::kInvalidArgument, "column 7"},
      {List(ListRequest("", "loss")).status(), absl::StatusCode::kInvalidArgument, "order_by"},
  };

  for (const auto& bad : kCases) {
    EXPECT_EQ(bad.status.code(), bad.code) << bad.status;
    EXPECT_FALSE(ErrorReason(bad.status).empty()) << bad.status;
    std::string told(bad.status.message());
    for (const FieldViolation& violation : FieldViolations(bad.status)) {
      absl::StrAppend(&told, " ", violation.field);
    }
    EXPECT_THAT(told, HasSubstr(bad.names));
  }
  EXPECT_THAT(ListIds(ListRequest()), ElementsAre("there"));
}

TEST_F(JobApiTest, OversizedMessagesAreRefused) {
  auto request = server_.CreateRequest("big");
  request.mutable_training_job()->set_display_name(std::string(5 << 20, 'x'));
  const auto refused = server_.Create(request);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, _));
  LASP_EXPECT_OK(List(ListRequest()));
}

TEST_F(JobApiTest, PagesHoldOverChanges) {
  std::set<std::string> expected;
  for (int i = 0; i < 7; ++i) {
    LASP_ASSERT_OK(server_.Create(absl::StrCat("job-", i)));
    expected.insert(absl::StrCat("job-", i));
  }
  for (const char* order : {"", "create_time", "name desc", "display_name"}) {
    v1::ListTrainingJobsRequest request = ListRequest("", order, 3);
    std::multiset<std::string> seen;
    for (int page_number = 0; page_number < 10; ++page_number) {
      const auto page = List(request);
      LASP_ASSERT_OK(page);
      EXPECT_LE(page->training_jobs_size(), 3);
      EXPECT_FALSE(page->resume_token().empty());
      for (const TrainingJob& job : page->training_jobs()) {
        seen.insert(Id(job));
      }
      if (page->next_page_token().empty()) {
        break;
      }
      request.set_page_token(page->next_page_token());
      // The page before changes under the reader.
      LASP_ASSERT_OK(server_.Cancel(Id(page->training_jobs(0))).status());
      const std::string extra = absl::StrCat("extra-", NewUuid().substr(0, 8));
      LASP_ASSERT_OK(server_.Create(extra));
    }
    for (const std::string& id : expected) {
      EXPECT_EQ(seen.count(id), 1U) << id << " in order '" << order << "'";
    }
  }
}

TEST_F(JobApiTest, PageTokensAreBoundToTheirList) {
  for (int i = 0; i < 3; ++i) {
    LASP_ASSERT_OK(server_.Create(absl::StrCat("job-", i)));
  }
  const auto page = List(ListRequest("", "", 1));
  LASP_ASSERT_OK(page);
  ASSERT_FALSE(page->next_page_token().empty());
  v1::ListTrainingJobsRequest other = ListRequest("state=QUEUED", "", 1);
  other.set_page_token(page->next_page_token());
  EXPECT_THAT(List(other), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_token")));
  other = ListRequest("", "", 1);
  other.set_page_token("made-up");
  EXPECT_THAT(List(other), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_token")));
  // Another page size is the same list; a restart of the coordinator changes nothing.
  server_.Restart();
  v1::ListTrainingJobsRequest rest = ListRequest("", "", 50);
  rest.set_page_token(page->next_page_token());
  EXPECT_EQ(ListIds(rest).size(), 2U);
}

TEST_F(JobApiTest, ListsByFilterOrderAndProject) {
  for (const char* id : {"b", "a", "c"}) {
    auto request = server_.CreateRequest(id);
    (*request.mutable_training_job()->mutable_labels())["odd"] =
        id == std::string("b") ? "no" : "yes";
    LASP_ASSERT_OK(server_.Create(request));
  }
  LASP_ASSERT_OK(server_.Cancel("c"));
  EXPECT_THAT(ListIds(ListRequest()), ElementsAre("c", "a", "b"));
  EXPECT_THAT(ListIds(ListRequest("", "name")), ElementsAre("a", "b", "c"));
  EXPECT_THAT(ListIds(ListRequest("labels.odd=yes", "name")), ElementsAre("a", "c"));
  EXPECT_THAT(ListIds(ListRequest("state=CANCELLED")), ElementsAre("c"));
  v1::ListTrainingJobsRequest request = ListRequest();
  request.set_parent("projects/other");
  EXPECT_THAT(ListIds(request), IsEmpty());
  request.set_parent("projects/-");
  EXPECT_EQ(ListIds(request).size(), 3U);
}

TEST_F(JobApiTest, UpdatesNameAndLabelsOnly) {
  const auto created = server_.Create("first");
  LASP_ASSERT_OK(created);
  v1::UpdateTrainingJobRequest request;
  request.mutable_training_job()->set_name(created->name());
  request.mutable_training_job()->set_display_name("renamed");
  (*request.mutable_training_job()->mutable_labels())["team"] = "nlp";
  request.mutable_update_mask()->add_paths("display_name");
  const auto update = [&] {
    return server_.Call(server_.jobs.get(), &Stub::UpdateTrainingJob, request);
  };
  auto updated = update();
  LASP_ASSERT_OK(updated);
  EXPECT_EQ(updated->display_name(), "renamed");
  EXPECT_TRUE(updated->labels().empty());
  EXPECT_NE(updated->etag(), created->etag());
  request.clear_update_mask();
  updated = update();
  LASP_ASSERT_OK(updated);
  EXPECT_EQ(updated->labels().at("team"), "nlp");

  request.mutable_training_job()->set_etag(created->etag());
  EXPECT_THAT(update(), StatusIs(absl::StatusCode::kAborted, _));
  request.mutable_training_job()->clear_etag();
  request.mutable_update_mask()->add_paths("spec.max_steps");
  EXPECT_THAT(update(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("update_mask")));
  request.mutable_update_mask()->set_paths(0, "labels");
  (*request.mutable_training_job()->mutable_labels())["team"] = std::string(300, 'x');
  EXPECT_THAT(update(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("labels.team")));
}

TEST_F(JobApiTest, CancelsSuspendsResumesAndDeletes) {
  LASP_ASSERT_OK(server_.Create("first"));
  v1::SuspendTrainingJobRequest suspend;
  suspend.set_name(RunningServer::NameOf("first"));
  const auto suspended = server_.Call(server_.jobs.get(), &Stub::SuspendTrainingJob, suspend);
  LASP_ASSERT_OK(suspended);
  EXPECT_EQ(suspended->state(), TrainingJob::STATE_SUSPENDED);
  v1::ResumeTrainingJobRequest resume;
  resume.set_name(suspend.name());
  const auto resumed = server_.Call(server_.jobs.get(), &Stub::ResumeTrainingJob, resume);
  LASP_ASSERT_OK(resumed);
  EXPECT_EQ(resumed->state(), TrainingJob::STATE_QUEUED);
  EXPECT_THAT(server_.Call(server_.jobs.get(), &Stub::ResumeTrainingJob, resume),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));

  const auto cancelled = server_.Cancel("first");
  LASP_ASSERT_OK(cancelled);
  EXPECT_EQ(cancelled->state(), TrainingJob::STATE_CANCELLED);
  LASP_EXPECT_OK(server_.Cancel("first"));  // idempotent
  EXPECT_THAT(server_.Call(server_.jobs.get(), &Stub::SuspendTrainingJob, suspend),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));

  EXPECT_THAT(Delete("first", "stale"), StatusIs(absl::StatusCode::kAborted, _));
  const auto got = server_.Get("first");
  LASP_ASSERT_OK(got);
  LASP_EXPECT_OK(Delete("first", got->etag()));
  EXPECT_THAT(server_.Get("first"), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(JobApiTest, ASecondServerNamesTheHolder) {
  const auto second = Server::Start(server_.options());
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr(absl::StrCat("pid ", getpid()))));
  ServerOptions options = server_.options();
  options.data_dir = server_.folder().Join("other");
  options.api_address = server_.server().addresses().api_address;
  const auto same_port = Server::Start(options);
  EXPECT_THAT(same_port, StatusIs(absl::StatusCode::kUnavailable,
                                  HasSubstr(absl::StrCat("is held by pid ", getpid()))));
  EXPECT_THAT(same_port, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("--api_address")));
  LASP_EXPECT_OK(server_.Create("still-serving"));
}

}  // namespace
}  // namespace lasp::server
