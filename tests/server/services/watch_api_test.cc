// Watching jobs over the wire.
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/principal.h"
#include "server/selected_jobs.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/stream_reader.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;
using v1::TrainingJob;
using v1::WatchTrainingJobsRequest;
using v1::WatchTrainingJobsResponse;
using Watcher = StreamReader<WatchTrainingJobsResponse>;

ServerOptions FastBookmarks() {
  ServerOptions options;
  options.core.bookmark_interval = absl::Milliseconds(300);
  return options;
}

class WatchApiTest : public ::testing::Test {
 protected:
  std::unique_ptr<Watcher> Watch(const std::string& resume_token = "",
                                 const std::string& filter = "",
                                 const std::string& parent = "projects/default",
                                 bool batched = false) {
    WatchTrainingJobsRequest request;
    request.set_batched(batched);
    request.set_parent(parent);
    request.set_filter(filter);
    request.set_resume_token(resume_token);
    return std::make_unique<Watcher>([this, request](grpc::ClientContext* context) {
      return server_.jobs->WatchTrainingJobs(context, request);
    });
  }

  // Passes over bookmarks.
  static std::optional<WatchTrainingJobsResponse> NextChange(Watcher* watcher) {
    while (auto event = watcher->Next()) {
      if (!event->has_bookmark()) {
        return event;
      }
    }
    return std::nullopt;
  }

  // Passes over all until the snapshot has ended; the token of that bookmark.
  static std::string AwaitSnapshotEnd(Watcher* watcher) {
    while (auto event = watcher->Next()) {
      if (event->has_bookmark() && event->bookmark().snapshot_end()) {
        return event->resume_token();
      }
    }
    ADD_FAILURE() << "the snapshot never ended";
    return "";
  }

  RunningServer server_{FastBookmarks()};
};

TEST_F(WatchApiTest, GivesTheSnapshotThenChangesThenDeletions) {
  LASP_ASSERT_OK(server_.Create("old"));
  const auto watcher = Watch();
  const auto snapshot = watcher->Next();
  ASSERT_TRUE(snapshot.has_value());
  EXPECT_EQ(snapshot->updated().name(), RunningServer::NameOf("old"));
  EXPECT_EQ(snapshot->updated().spec().max_steps(), 10);
  AwaitSnapshotEnd(watcher.get());

  LASP_ASSERT_OK(server_.Create("new"));
  auto event = NextChange(watcher.get());
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->updated().name(), RunningServer::NameOf("new"));

  LASP_ASSERT_OK(server_.Cancel("new"));
  do {
    event = NextChange(watcher.get());
    ASSERT_TRUE(event.has_value());
  } while (event->updated().state() != TrainingJob::STATE_CANCELLED);

  v1::DeleteTrainingJobRequest request;
  request.set_name(RunningServer::NameOf("new"));
  LASP_ASSERT_OK(
      server_.Call(server_.jobs.get(), &v1::TrainingJobService::Stub::DeleteTrainingJob, request)
          .status());
  event = NextChange(watcher.get());
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->deleted_name(), RunningServer::NameOf("new"));
}

TEST_F(WatchApiTest, AnIdleWatchGetsBookmarks) {
  const auto watcher = Watch();
  AwaitSnapshotEnd(watcher.get());
  const auto event = watcher->Next();
  ASSERT_TRUE(event.has_value());
  ASSERT_TRUE(event->has_bookmark());
  EXPECT_FALSE(event->bookmark().snapshot_end());
  EXPECT_FALSE(event->resume_token().empty());
}

TEST_F(WatchApiTest, ResumesWithoutGapAlsoAfterARestart) {
  std::string token;
  {
    const auto watcher = Watch();
    token = AwaitSnapshotEnd(watcher.get());
  }
  LASP_ASSERT_OK(server_.Create("while-away"));
  server_.Restart();
  const auto watcher = Watch(token);
  const auto event = NextChange(watcher.get());
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->updated().name(), RunningServer::NameOf("while-away"));
}

TEST_F(WatchApiTest, AListTellsWhereToWatchFrom) {
  LASP_ASSERT_OK(server_.Create("listed"));
  v1::ListTrainingJobsRequest request;
  request.set_parent("projects/default");
  const auto page =
      server_.Call(server_.jobs.get(), &v1::TrainingJobService::Stub::ListTrainingJobs, request);
  LASP_ASSERT_OK(page);
  LASP_ASSERT_OK(server_.Create("after"));
  const auto watcher = Watch(page->resume_token());
  std::vector<std::string> names;
  while (names.empty() || names.back() != RunningServer::NameOf("after")) {
    const auto event = NextChange(watcher.get());
    ASSERT_TRUE(event.has_value());
    names.push_back(event->updated().name());
  }
}

TEST_F(WatchApiTest, FiltersAndProjectsSelect) {
  const auto watcher = Watch("", "name=" + RunningServer::NameOf("wanted"));
  const auto elsewhere = Watch("", "", "projects/elsewhere");
  const auto everywhere = Watch("", "", "projects/-");
  AwaitSnapshotEnd(watcher.get());
  AwaitSnapshotEnd(elsewhere.get());
  AwaitSnapshotEnd(everywhere.get());
  LASP_ASSERT_OK(server_.Create("other"));
  LASP_ASSERT_OK(server_.Create("wanted"));
  EXPECT_EQ(NextChange(watcher.get())->updated().name(), RunningServer::NameOf("wanted"));
  EXPECT_EQ(NextChange(everywhere.get())->updated().name(), RunningServer::NameOf("other"));
  const auto bookmark = elsewhere->Next();
  ASSERT_TRUE(bookmark.has_value());
  EXPECT_TRUE(bookmark->has_bookmark());
}

TEST_F(WatchApiTest, TellsWhenTheFilterNoLongerSelectsAJob) {
  LASP_ASSERT_OK(server_.Create("kept"));
  LASP_ASSERT_OK(server_.Create("leaves"));
  const auto queued = Watch("", "state=QUEUED");
  const auto cancelled = Watch("", "state=CANCELLED");
  const std::string token = AwaitSnapshotEnd(queued.get());
  AwaitSnapshotEnd(cancelled.get());
  LASP_ASSERT_OK(server_.Cancel("leaves"));
  const auto removed = NextChange(queued.get());
  ASSERT_TRUE(removed.has_value());
  EXPECT_EQ(removed->removed_name(), RunningServer::NameOf("leaves"));
  EXPECT_FALSE(removed->resume_token().empty());
  // To this one it never was there before.
  EXPECT_EQ(NextChange(cancelled.get())->updated().name(), RunningServer::NameOf("leaves"));

  // Once only; and who comes back learns what has left meanwhile.
  LASP_ASSERT_OK(server_.Create("next"));
  EXPECT_EQ(NextChange(queued.get())->updated().name(), RunningServer::NameOf("next"));
  const auto resumed = Watch(token, "state=QUEUED");
  EXPECT_EQ(NextChange(resumed.get())->removed_name(), RunningServer::NameOf("leaves"));
  EXPECT_EQ(NextChange(resumed.get())->updated().name(), RunningServer::NameOf("next"));
}

TEST_F(WatchApiTest, BatchesHoldTheSameEventsInOrder) {
  constexpr int kJobs = 100;
  std::vector<std::string> created;
  created.reserve(kJobs);
  for (int i = 0; i < kJobs; ++i) {
    const std::string id = absl::StrCat("job-", i);
    LASP_ASSERT_OK(server_.Create(id));
    created.push_back(RunningServer::NameOf(id));
  }
  const auto single = Watch();
  const auto batched = Watch("", "", "projects/default", /*batched=*/true);
  std::vector<WatchTrainingJobsResponse> events;
  int messages = 0;
  while (events.empty() || !events.back().bookmark().snapshot_end()) {
    const auto message = batched->Next();
    ASSERT_TRUE(message.has_value());
    ++messages;
    if (message->has_batch()) {
      ASSERT_GT(message->batch().events_size(), 1);
      events.insert(events.end(), message->batch().events().begin(),
                    message->batch().events().end());
      EXPECT_EQ(message->resume_token(), events.back().resume_token());
    } else {
      events.push_back(*message);
    }
  }
  EXPECT_LT(messages, kJobs / 10);
  ASSERT_EQ(events.size(), kJobs + 1);
  for (int i = 0; i < kJobs; ++i) {
    const auto& event = events[static_cast<size_t>(i)];
    EXPECT_EQ(event.updated().name(), created[static_cast<size_t>(i)]);
    const auto alone = single->Next();
    ASSERT_TRUE(alone.has_value());
    EXPECT_EQ(event.SerializeAsString(), alone->SerializeAsString());
  }
  // A watch may go on in the middle of a batch.
  const auto resumed = Watch(events[10].resume_token());
  EXPECT_EQ(NextChange(resumed.get())->updated().name(), created[11]);
}

TEST_F(WatchApiTest, RefusesBadRequests) {
  EXPECT_THAT(Watch("", "", "default")->AwaitEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("projects/")));
  EXPECT_THAT(Watch("", "color=red")->AwaitEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("column 1")));
  EXPECT_THAT(Watch("garbage")->AwaitEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("resume_token")));
  RunningServer other;
  LASP_ASSERT_OK(other.Create("x"));
  v1::ListTrainingJobsRequest request;
  request.set_parent("projects/default");
  const auto page =
      other.Call(other.jobs.get(), &v1::TrainingJobService::Stub::ListTrainingJobs, request);
  LASP_ASSERT_OK(page);
  const absl::Status expired = Watch(page->resume_token())->AwaitEnd();
  EXPECT_EQ(expired.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ErrorReason(expired), "RESUME_TOKEN_EXPIRED");
}

TEST(SelectedJobsTest, HoldsNothingOfJobsThatAreGone) {
  SelectedJobs resumed;
  resumed.Resume();
  EXPECT_TRUE(resumed.Exchange("a", false)) << "it may have it";
  EXPECT_FALSE(resumed.Exchange("a", false));
  EXPECT_TRUE(resumed.Exchange("b", true));
  EXPECT_EQ(resumed.size(), 2u);
  resumed.Forget("a");
  resumed.Forget("b");
  EXPECT_EQ(resumed.size(), 0u);
}

TEST(PrincipalTest, IsTheHostOfThePeer) {
  EXPECT_EQ(PrincipalOfPeer("ipv4:192.0.2.1:40000"), "ipv4:192.0.2.1");
  EXPECT_EQ(PrincipalOfPeer("ipv6:%5B2001:db8::1%5D:40000"), "ipv6:%5B2001:db8::1%5D");
  EXPECT_EQ(PrincipalOfPeer("unix:/run/lasp.sock"), "unix:/run/lasp.sock");
}

// Of all kinds together; one that ends makes room.
TEST(StreamLimitTest, APrincipalsStreamsAreBounded) {
  ServerOptions options;
  options.max_streams_a_principal = 2;
  RunningServer server(options);
  LASP_ASSERT_OK(server.Create("job"));
  const auto watch = [&server] {
    return std::make_unique<Watcher>([&server](grpc::ClientContext* context) {
      WatchTrainingJobsRequest request;
      request.set_parent("projects/default");
      return server.jobs->WatchTrainingJobs(context, request);
    });
  };
  auto first = watch();
  ASSERT_TRUE(first->Next().has_value());
  const StreamReader<v1::StreamLogsResponse> second([&server](grpc::ClientContext* context) {
    v1::StreamLogsRequest request;
    request.set_name(RunningServer::NameOf("job"));
    request.set_follow(true);
    return server.logs->StreamLogs(context, request);
  });
  absl::Status refused;
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  do {  // until the second has arrived
    refused = watch()->AwaitEnd(absl::Milliseconds(200));
  } while (absl::IsDeadlineExceeded(refused) && absl::Now() < deadline);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("127.0.0.1 has 2 streams open")));
  EXPECT_EQ(ErrorReason(refused), "TOO_MANY_STREAMS");
  // Calls that are no streams go on.
  LASP_EXPECT_OK(server.Create("other"));
  first = nullptr;
  bool admitted = false;
  while (!admitted && absl::Now() < deadline) {
    admitted = watch()->Next().has_value();
  }
  EXPECT_TRUE(admitted);
}

TEST_F(WatchApiTest, StoppingEndsWatchesWithUnavailable) {
  const auto watcher = Watch();
  AwaitSnapshotEnd(watcher.get());
  const auto start = absl::Now();
  server_.server().Stop(absl::Seconds(5));
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
  EXPECT_THAT(watcher->AwaitEnd(), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST(SlowReaderTest, IsEndedAndCostsNothingMeanwhile) {
  ServerOptions options;
  options.slow_reader_limit = absl::Seconds(1);
  RunningServer server(options);
  // Jobs large enough to fill the window of a stream that is never read.
  auto request = server.CreateRequest("");
  for (int i = 0; i < 60; ++i) {
    (*request.mutable_training_job()->mutable_labels())[absl::StrCat("key-", i)] =
        std::string(250, 'v');
  }
  for (int i = 0; i < 100; ++i) {
    LASP_ASSERT_OK(server.Create(request));
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  WatchTrainingJobsRequest watch;
  watch.set_parent("projects/default");
  // A window that stays small: gRPC would let it grow beyond what there is to send.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
  const auto stub = v1::TrainingJobService::NewStub(grpc::CreateCustomChannel(
      server.server().addresses().api_address, grpc::InsecureChannelCredentials(), arguments));
  const auto reader = stub->WatchTrainingJobs(&context, watch);
  WatchTrainingJobsResponse event;
  ASSERT_TRUE(reader->Read(&event));
  // Not reading: what is under way has a second.
  Mutex mutex;
  CondVar never;
  {
    MutexLock lock(&mutex);
    const absl::Time end = absl::Now() + absl::Seconds(4);
    while (absl::Now() < end) {
      never.WaitWithTimeout(&mutex, end - absl::Now());
    }
  }
  int received = 1;
  while (reader->Read(&event)) {
    ++received;
  }
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), "SLOW_READER");
  EXPECT_LT(received, 100);
  LASP_EXPECT_OK(server.Create("still-serving"));
}

// Each on a connection of its own, on which nothing else is said.
TEST(QuietWatchTest, TheSnapshotDoesNotWaitForOtherTraffic) {
  RunningServer server;
  LASP_ASSERT_OK(server.Create("a"));
  LASP_ASSERT_OK(server.Create("b"));
  for (int i = 0; i < 20; ++i) {
    const auto stub =
        v1::TrainingJobService::NewStub(NewChannel(server.server().addresses().api_address));
    Watcher watcher([&stub](grpc::ClientContext* context) {
      WatchTrainingJobsRequest request;
      request.set_parent("projects/default");
      return stub->WatchTrainingJobs(context, request);
    });
    for (const char* event : {"job a", "job b", "the end of the snapshot"}) {
      ASSERT_TRUE(watcher.Next(absl::Seconds(3)).has_value()) << event << " of watch " << i;
    }
  }
}

}  // namespace
}  // namespace lasp::server
