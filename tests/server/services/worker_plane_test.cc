// The worker plane: a fake agent drives jobs through their lives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/server/services/scrape.h"
#include "tests/server/services/stream_reader.h"
#include "tests/server/services/worker_plane_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using WorkerPlaneTest = WorkerPlaneFixture;
using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;
using v1::ConnectResponse;
using v1::Fence;
using v1::TrainingJob;
using v1::Worker;

TEST_F(WorkerPlaneTest, AWholeJobLife) {
  const auto agent = NewAgent("host-a", 2);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("life", 2));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 2);
  ASSERT_EQ(fences.size(), 2U);
  EXPECT_EQ(AwaitState("life", TrainingJob::STATE_STARTING).generation(), 1);

  StreamReader<v1::StreamMetricsResponse> live([this](grpc::ClientContext* context) {
    v1::StreamMetricsRequest request;
    request.set_name(RunningServer::NameOf("life"));
    request.set_from_step(2);
    return server_.metrics->StreamMetrics(context, request);
  });
  StreamReader<v1::StreamLogsResponse> lines([this](grpc::ClientContext* context) {
    v1::StreamLogsRequest request;
    request.set_name(RunningServer::NameOf("life"));
    request.set_follow(true);
    request.set_rank(1);
    return server_.logs->StreamLogs(context, request);
  });

  Connect(agent.get(), fences);
  const TrainingJob running = AwaitState("life", TrainingJob::STATE_RUNNING);
  EXPECT_EQ(running.placements_size(), 2);
  EXPECT_EQ(running.placements(0).worker(), "workers/host-a");
  const auto worker = GetWorker("host-a");
  LASP_ASSERT_OK(worker);
  EXPECT_EQ(worker->slots(0).training_job(), RunningServer::NameOf("life"));

  agent->Send(Log(fences[1], 0, "2026-11-21T20:00:00.000001Z first\n"));
  agent->Send(Log(fences[1], 34, "2026-11-21T20:00:01.000001Z bad \xff byte\n"));
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Steps(fences[0], 1, 4))));
  std::vector<std::string> texts;
  while (texts.size() < 2) {
    const auto batch = lines.Next();
    ASSERT_TRUE(batch.has_value());
    for (const auto& line : batch->lines()) {
      EXPECT_EQ(line.rank(), 1);
      texts.push_back(line.text());
    }
  }
  EXPECT_EQ(texts[0], "first");
  EXPECT_EQ(texts[1], "bad \xef\xbf\xbd byte");
  std::vector<int64_t> steps;
  while (steps.size() < 3) {
    const auto batch = live.Next();
    ASSERT_TRUE(batch.has_value());
    for (const auto& row : batch->steps()) {
      steps.push_back(row.step());
    }
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{2, 3, 4}));

  agent->Send(Steps(fences[0], 5, 10));
  agent->Send(Exit(fences[0], 0, 0, 10));
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Exit(fences[1], 1, 0, 10))));
  const TrainingJob done = AwaitState("life", TrainingJob::STATE_SUCCEEDED);
  EXPECT_EQ(done.progress().step(), 10);
  LASP_EXPECT_OK(live.AwaitEnd());
  LASP_EXPECT_OK(lines.AwaitEnd());

  v1::QueryMetricsRequest query;
  query.set_name(done.name());
  auto rows = server_.Call(server_.metrics.get(), &v1::MetricsService::Stub::QueryMetrics, query);
  LASP_ASSERT_OK(rows);
  EXPECT_EQ(rows->steps_size(), 10);
  query.set_from_step(3);
  query.set_to_step(9);
  query.set_max_points(3);
  rows = server_.Call(server_.metrics.get(), &v1::MetricsService::Stub::QueryMetrics, query);
  LASP_ASSERT_OK(rows);
  EXPECT_LE(rows->steps_size(), 3);
  EXPECT_EQ(rows->steps(0).step(), 3);
  EXPECT_EQ(rows->steps(rows->steps_size() - 1).step(), 9);
}

TEST_F(WorkerPlaneTest, ADeadRankStartsANewGenerationAndOldMessagesAreFenced) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("again"));
  const std::vector<Fence> first = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(first.size(), 1U);
  Connect(agent.get(), first);
  agent->Send(Exit(first[0], 0, 128 + 9, 3));
  const std::vector<Fence> second = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].generation(), 2);
  const auto job = server_.Get("again");
  LASP_ASSERT_OK(job);
  EXPECT_EQ(job->restart_count(), 1);
  EXPECT_EQ(job->reason(), "RESTARTED_FROM_START");

  agent->SendHeartbeat({[&first] {
    v1::RankStatus status;
    *status.mutable_fence() = first[0];
    return status;
  }()});
  const auto stop = agent->Await(ConnectResponse::kStop);
  ASSERT_TRUE(stop.has_value());
  EXPECT_EQ(stop->stop().reason(), "STALE_GENERATION");
  EXPECT_EQ(stop->stop().fence().generation(), 1);
}

TEST_F(WorkerPlaneTest, AFollowerOfStepsGoesOnAfterARestart) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("twice"));
  const auto follow = [this](int64_t generation, int64_t step) {
    return std::make_unique<StreamReader<v1::StreamMetricsResponse>>(
        [&](grpc::ClientContext* context) {
          v1::StreamMetricsRequest request;
          request.set_name(RunningServer::NameOf("twice"));
          request.set_from_step(step);
          request.set_from_generation(generation);
          return server_.metrics->StreamMetrics(context, request);
        });
  };
  // The next `count` steps, as generation.step.
  const auto take = [](StreamReader<v1::StreamMetricsResponse>* stream, size_t count) {
    std::vector<std::string> steps;
    while (steps.size() < count) {
      const auto batch = stream->Next();
      if (!batch.has_value()) {
        break;
      }
      for (const auto& row : batch->steps()) {
        steps.push_back(absl::StrCat(row.generation(), ".", row.step()));
      }
    }
    return absl::StrJoin(steps, " ");
  };

  const auto live = follow(0, 0);
  const std::vector<Fence> first = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(first.size(), 1U);
  Connect(agent.get(), first);
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Steps(first[0], 1, 3))));
  EXPECT_EQ(take(live.get(), 3), "1.1 1.2 1.3");
  agent->Send(Exit(first[0], 0, 128 + 9, 3));
  const std::vector<Fence> second = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(second.size(), 1U);
  Connect(agent.get(), second);
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Steps(second[0], 1, 5))));
  EXPECT_EQ(take(live.get(), 5), "2.1 2.2 2.3 2.4 2.5");
  // Who was away meanwhile had seen step 3 of the first generation, or step 2 of the second.
  EXPECT_EQ(take(follow(1, 4).get(), 5), "2.1 2.2 2.3 2.4 2.5");
  EXPECT_EQ(take(follow(2, 3).get(), 3), "2.3 2.4 2.5");

  agent->Send(Steps(second[0], 6, 10));
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Exit(second[0], 0, 0, 10))));
  EXPECT_EQ(take(live.get(), 5), "2.6 2.7 2.8 2.9 2.10");
  LASP_EXPECT_OK(live->AwaitEnd());

  EXPECT_THAT(follow(-1, -1)->AwaitEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("from_step")));
}

TEST_F(WorkerPlaneTest, CancellingStopsTheRanks) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("stop-me"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  Connect(agent.get(), fences);
  LASP_ASSERT_OK(server_.Cancel("stop-me"));
  const auto stop = agent->Await(ConnectResponse::kStop);
  ASSERT_TRUE(stop.has_value());
  EXPECT_EQ(stop->stop().fence().rank(), 0);
  agent->Send(Exit(fences[0], 0, 128 + 9, 0));
  AwaitState("stop-me", TrainingJob::STATE_CANCELLED);
}

TEST_F(WorkerPlaneTest, RefusesStrangers) {
  const auto refused = [this](const std::function<void(v1::Hello*)>& change) {
    const auto agent = NewAgent("host-a", 1);
    v1::Hello hello = agent->NewHello();
    change(&hello);
    agent->SendHello(hello);
    return agent->AwaitEnd();
  };
  EXPECT_THAT(refused([](auto* h) { h->set_protocol_version(99); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("99")));
  EXPECT_THAT(refused([](auto* h) { h->set_worker_id("no/slash"); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("worker_id")));
  EXPECT_THAT(refused([](auto* h) { h->clear_incarnation(); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("incarnation")));
  EXPECT_THAT(refused([](auto* h) { h->mutable_slots(0)->set_index(-1); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("slots")));
  EXPECT_THAT(refused([](auto* h) { h->set_host_name(std::string(300, 'h')); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("host_name")));
  const auto rude = NewAgent("host-a", 1);
  rude->SendHeartbeat({});
  EXPECT_THAT(rude->AwaitEnd(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Hello")));
  EXPECT_THAT(GetWorker("host-a"), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(WorkerPlaneTest, TheNewerConnectionOfAWorkerWins) {
  const auto older = NewAgent("host-a", 1);
  ASSERT_TRUE(older->Register());
  const auto newer = NewAgent("host-a", 1);
  ASSERT_TRUE(newer->Register());
  const absl::Status status = older->AwaitEnd();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(ErrorReason(status).empty()) << status;
  EXPECT_EQ(newer->AwaitEnd(absl::Milliseconds(300)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(WorkerPlaneTest, AgentsTellOfTheirHosts) {
  const auto agent = NewAgent("host-a", 1);
  v1::Hello hello = agent->NewHello();
  hello.set_gpu_driver_version("580.65.06");
  hello.add_gpu_problems("GPU 3: it is lost");
  hello.add_gpu_problems(std::string(5'000, 'x'));  // too long to be kept
  agent->SendHello(hello);
  ASSERT_TRUE(agent->Await(v1::ConnectResponse::kWelcome).has_value());
  v1::GetWorkerRequest request;
  request.set_name("workers/host-a");
  const auto get = [&] {
    return *server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::GetWorker, request);
  };
  EXPECT_EQ(get().protocol_version(), hello.protocol_version());
  EXPECT_EQ(get().host_report().gpu_driver_version(), "580.65.06");
  ASSERT_EQ(get().host_report().gpu_problems_size(), 1);
  EXPECT_FALSE(get().host_report().has_clock_offset());

  agent->SendHeartbeat({});  // of an older release: it says nothing
  v1::ConnectRequest heartbeat;
  heartbeat.mutable_heartbeat()->mutable_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) + 60);
  heartbeat.mutable_heartbeat()->set_work_disk_free_bytes(3);
  heartbeat.mutable_heartbeat()->set_work_disk_size_bytes(7);
  agent->Send(heartbeat);
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!get().host_report().has_clock_offset() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  const v1::HostReport report = get().host_report();
  EXPECT_NEAR(static_cast<double>(report.clock_offset().seconds()), 60, 10);
  EXPECT_EQ(report.work_disk_free_bytes(), 3);
  EXPECT_EQ(report.work_disk_size_bytes(), 7);
  EXPECT_EQ(report.gpu_problems_size(), 1);
}

// One that does not come back after the coordinator does is missed since then; one that was drained
// and left is not.
TEST_F(WorkerPlaneTest, AWorkerThatGoesWhileTheCoordinatorIsDownIsMissed) {
  std::vector<std::unique_ptr<FakeAgent>> agents;
  for (const char* id : {"stays", "goes", "drained"}) {
    agents.push_back(NewAgent(id, 1));
    ASSERT_TRUE(agents.back()->Register());
  }
  v1::DrainWorkerRequest drain;
  drain.set_name("workers/drained");
  LASP_ASSERT_OK(
      server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::DrainWorker, drain));
  agents.clear();
  const absl::Time restart = absl::Now();
  server_.Restart();
  const std::string& metrics = server_.server().addresses().metrics_address;
  const auto heard_of = [](absl::string_view worker) {
    return absl::StrCat("lasp_worker_last_heartbeat_timestamp_seconds{worker=\"", worker, "\"}");
  };
  EXPECT_GE(ScrapeValue(metrics, heard_of("goes")), absl::ToUnixSeconds(restart));
  EXPECT_THAT(Scrape(metrics), Not(HasSubstr(heard_of("drained"))));
  const auto back = NewAgent("stays", 1);
  const int64_t before = absl::ToUnixSeconds(absl::Now());
  ASSERT_TRUE(back->Register());
  EXPECT_GE(ScrapeValue(metrics, heard_of("stays")), before);
}

TEST_F(WorkerPlaneTest, WorkersAreListedAndDrained) {
  std::vector<std::unique_ptr<FakeAgent>> agents;
  for (const char* id : {"host-c", "host-a", "host-b"}) {
    agents.push_back(NewAgent(id, 1));
    ASSERT_TRUE(agents.back()->Register());
  }
  std::vector<std::string> names;
  v1::ListWorkersRequest request;
  request.set_page_size(2);
  do {
    const auto page =
        server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::ListWorkers, request);
    LASP_ASSERT_OK(page);
    for (const Worker& worker : page->workers()) {
      EXPECT_EQ(worker.state(), Worker::STATE_READY);
      EXPECT_TRUE(worker.has_last_heartbeat_time());
      names.push_back(worker.name());
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names,
            (std::vector<std::string>{"workers/host-a", "workers/host-b", "workers/host-c"}));
  request.set_page_token("forged");
  EXPECT_THAT(
      server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::ListWorkers, request),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_token")));

  v1::DrainWorkerRequest drain;
  drain.set_name("workers/host-a");
  const auto drained =
      server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::DrainWorker, drain);
  LASP_ASSERT_OK(drained);
  EXPECT_NE(drained->state(), Worker::STATE_READY);
  drain.set_name("workers/absent");
  EXPECT_THAT(
      server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::DrainWorker, drain),
      StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(GetWorker("bad id"), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(WorkerPlaneTest, AFollowerGetsTheLastWordsOfAFailingJob) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("fails"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  v1::StreamLogsRequest request;
  request.set_name(RunningServer::NameOf("fails"));
  request.set_follow(true);
  const auto follow = [&](grpc::ClientContext* context) {
    return server_.logs->StreamLogs(context, request);
  };
  StreamReader<v1::StreamLogsResponse> lines(follow);
  agent->Send(Log(fences[0], 0, "2026-11-21T20:00:00.000001Z first\n"));
  auto batch = lines.Next();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->lines(0).text(), "first");

  // Agents tell of an exit before the rest of the log.
  ASSERT_TRUE(agent->AwaitAck(agent->Send(Exit(fences[0], 0, kRankWrongConfiguration, 3))));
  AwaitState("fails", TrainingJob::STATE_FAILED);
  agent->Send(Log(fences[0], 34, "2026-11-21T20:00:01.000001Z why it failed\n"));
  batch = lines.Next();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->lines(0).text(), "why it failed");
  LASP_EXPECT_OK(lines.AwaitEnd());

  // Who comes later reads all, and is not held.
  StreamReader<v1::StreamLogsResponse> late(follow);
  batch = late.Next();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->lines_size(), 2);
  LASP_EXPECT_OK(late.AwaitEnd());
}

}  // namespace
}  // namespace lasp::server
