// Events over the wire: pages, watches, tokens, and whose they are.
#include "absl/strings/str_cat.h"
#include "lasp/v1/event_service.grpc.pb.h"
#include "proto/rpc/error_details.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/stream_reader.h"
#include "tests/server/services/worker_plane_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using v1::Event;
using v1::ListEventsRequest;
using v1::WatchEventsResponse;

class EventApiTest : public ::testing::Test {
 protected:
  explicit EventApiTest(ServerOptions options = {}) : server_(std::move(options)) { Connect(); }

  void Connect() { events_ = v1::EventService::NewStub(server_.channel()); }

  absl::StatusOr<v1::ListEventsResponse> List(const ListEventsRequest& request) {
    return RunningServer::Call(events_.get(), &v1::EventService::Stub::ListEvents, request);
  }

  static ListEventsRequest Of(const std::string& subject,
                              const std::string& parent = "projects/default") {
    ListEventsRequest request;
    request.set_parent(parent);
    request.set_subject(subject);
    return request;
  }

  std::unique_ptr<StreamReader<WatchEventsResponse>> Watch(const std::string& token,
                                                           const std::string& subject = "") {
    v1::WatchEventsRequest request;
    request.set_parent("projects/default");
    request.set_subject(subject);
    request.set_resume_token(token);
    return std::make_unique<StreamReader<WatchEventsResponse>>(
        [this, request](grpc::ClientContext* context) {
          return events_->WatchEvents(context, request);
        });
  }

  // The next event; nothing at the end. Passes over answers that hold a token alone.
  static std::optional<Event> NextEvent(StreamReader<WatchEventsResponse>* watcher) {
    while (const auto response = watcher->Next()) {
      EXPECT_FALSE(response->resume_token().empty());
      if (response->events_size() > 0) {
        EXPECT_EQ(response->events_size(), 1);
        return response->events(0);
      }
    }
    return std::nullopt;
  }

  RunningServer server_;
  std::unique_ptr<v1::EventService::Stub> events_;
};

TEST_F(EventApiTest, PagesGoIntoThePastAndMissNothing) {
  for (int i = 0; i < 5; ++i) {
    LASP_ASSERT_OK(server_.Create(absl::StrCat("job-", i)));
  }
  LASP_ASSERT_OK(server_.Cancel("job-3"));
  ListEventsRequest request = Of("");
  request.set_page_size(2);
  std::vector<std::string> seen;
  int64_t last = std::numeric_limits<int64_t>::max();
  do {
    const auto page = List(request);
    LASP_ASSERT_OK(page);
    EXPECT_LE(page->events_size(), 2);
    for (const Event& event : page->events()) {
      EXPECT_LT(event.sequence(), last);
      last = event.sequence();
      seen.push_back(absl::StrCat(event.subject().substr(event.subject().rfind('/') + 1), " ",
                                  event.to_state()));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(seen, ::testing::ElementsAre("job-3 CANCELLED", "job-4 QUEUED", "job-3 QUEUED",
                                           "job-2 QUEUED", "job-1 QUEUED", "job-0 QUEUED"));
  request.set_page_token("x");
  EXPECT_EQ(ErrorReason(List(request).status()), "PAGE_TOKEN_INVALID");
}

TEST_F(EventApiTest, AWatchGoesOnWhereAListEndedOverARestart) {
  LASP_ASSERT_OK(server_.Create("a"));
  const auto list = List(Of(RunningServer::NameOf("a")));
  LASP_ASSERT_OK(list);
  ASSERT_EQ(list->events_size(), 1);
  EXPECT_EQ(list->events(0).reason(), "SUBMITTED");
  std::string token;
  {
    const auto watcher = Watch(list->resume_token());
    // Where it began, at once.
    const auto greeting = watcher->Next();
    ASSERT_TRUE(greeting.has_value());
    EXPECT_EQ(greeting->resume_token(), list->resume_token());
    LASP_ASSERT_OK(server_.Create("b"));
    const auto event = watcher->Next();
    ASSERT_TRUE(event.has_value());
    ASSERT_EQ(event->events_size(), 1);
    EXPECT_EQ(event->events(0).subject(), RunningServer::NameOf("b"));
    token = event->resume_token();
  }
  LASP_ASSERT_OK(server_.Cancel("a"));
  server_.Restart();
  Connect();
  const auto watcher = Watch(token);
  const auto missed = NextEvent(watcher.get());
  ASSERT_TRUE(missed.has_value());
  EXPECT_EQ(missed->to_state(), "CANCELLED");
  // A job's own events are read from the store.
  const auto history = List(Of(RunningServer::NameOf("a")));
  LASP_ASSERT_OK(history);
  ASSERT_EQ(history->events_size(), 2);
  EXPECT_EQ(history->events(0).to_state(), "CANCELLED");
  EXPECT_EQ(history->events(0).sequence(), missed->sequence());
}

TEST_F(EventApiTest, AgentsComeAndGo) {
  const auto watcher = Watch("", "workers/host");
  ASSERT_TRUE(watcher->Next().has_value());
  {
    FakeAgent agent(server_.server().addresses().worker_address, "host", 2);
    ASSERT_TRUE(agent.Register());
    const auto event = NextEvent(watcher.get());
    ASSERT_TRUE(event.has_value());
    EXPECT_EQ(event->reason(), "REGISTERED");
    EXPECT_THAT(event->message(), HasSubstr("2 CPU and 0 GPU slots"));
  }
  const auto event = NextEvent(watcher.get());
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->reason(), "DISCONNECTED");
  EXPECT_EQ(event->severity(), Event::SEVERITY_WARNING);
  const auto list = List(Of("workers/host"));
  LASP_ASSERT_OK(list);
  EXPECT_EQ(list->events_size(), 2);
}

TEST_F(EventApiTest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(List(Of("", "default")), StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(List(Of("jobs/a")), StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(List(Of("projects/other/trainingJobs/a")),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(List(Of(RunningServer::NameOf("none"))), StatusIs(absl::StatusCode::kNotFound, _));
  for (const char* token : {"x", "ZXZlbnRzOng6MQ"}) {
    const auto watcher = Watch(token);
    EXPECT_FALSE(watcher->Next().has_value());
    EXPECT_THAT(ErrorReason(watcher->AwaitEnd()), HasSubstr("RESUME_TOKEN")) << token;
  }
}

class UnstoredEventTest : public WorkerPlaneFixture {
 protected:
  std::vector<std::string> ReasonsOf(const std::string& id) {
    ListEventsRequest request;
    request.set_parent("projects/default");
    request.set_subject(RunningServer::NameOf(id));
    const auto list =
        RunningServer::Call(events_.get(), &v1::EventService::Stub::ListEvents, request);
    LASP_EXPECT_OK(list);
    std::vector<std::string> reasons;
    for (const Event& event : list->events()) {
      reasons.push_back(event.reason());
    }
    return reasons;
  }

  std::unique_ptr<v1::EventService::Stub> events_ = v1::EventService::NewStub(server_.channel());
};

TEST_F(UnstoredEventTest, AJobsListHasThemAndNoneOfAnEarlierJobOfItsName) {
  const auto agent = NewAgent("host", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("job"));
  const std::vector<v1::Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1u);
  Connect(agent.get(), fences);
  AwaitState("job", v1::TrainingJob::STATE_RUNNING);
  v1::ConnectRequest report = Steps(fences[0], 3, 3);
  report.mutable_step_reports()->mutable_steps(0)->set_outlier(true);
  ASSERT_TRUE(agent->AwaitAck(agent->Send(std::move(report))));
  // The event leaves just after the acknowledgement.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (ReasonsOf("job").front() != "OUTLIER_STEP" && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_THAT(ReasonsOf("job"), Contains("OUTLIER_STEP"));

  LASP_ASSERT_OK(server_.Cancel("job"));
  agent->Send(Exit(fences[0], 0, 137, 3));
  AwaitState("job", v1::TrainingJob::STATE_CANCELLED);
  v1::DeleteTrainingJobRequest request;
  request.set_name(RunningServer::NameOf("job"));
  LASP_ASSERT_OK(RunningServer::Call(server_.jobs.get(),
                                     &v1::TrainingJobService::Stub::DeleteTrainingJob, request)
                     .status());
  LASP_ASSERT_OK(server_.Create("job"));
  EXPECT_EQ(ReasonsOf("job").back(), "SUBMITTED");
  EXPECT_THAT(ReasonsOf("job"), Not(Contains("OUTLIER_STEP")));
}

ServerOptions ShortHistory() {
  ServerOptions options;
  options.core.event_history = 3;
  return options;
}

class ShortHistoryTest : public EventApiTest {
 protected:
  ShortHistoryTest() : EventApiTest(ShortHistory()) {}
};

TEST_F(ShortHistoryTest, ATokenExpiresWithItsEvents) {
  LASP_ASSERT_OK(server_.Create("first"));
  const std::string token = List(Of(""))->resume_token();
  for (int i = 0; i < 5; ++i) {
    LASP_ASSERT_OK(server_.Create(absl::StrCat("job-", i)));
  }
  EXPECT_EQ(List(Of(""))->events_size(), 3);
  const auto watcher = Watch(token);
  EXPECT_FALSE(watcher->Next().has_value());
  EXPECT_EQ(ErrorReason(watcher->AwaitEnd()), "RESUME_TOKEN_EXPIRED");
  // A job's own history is whole all the same.
  EXPECT_EQ(List(Of(RunningServer::NameOf("first")))->events_size(), 1);
}

}  // namespace
}  // namespace lasp::server
