// The worker plane: a fake agent drives jobs through their lives.
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/server/services/fake_agent.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/server/services/stream_reader.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;
using v1::ConnectRequest;
using v1::ConnectResponse;
using v1::Fence;
using v1::TrainingJob;
using v1::Worker;

constexpr char kDroppedChunks[] = "lasp_log_chunks_dropped_total";

class WorkerPlaneTest : public ::testing::Test {
 protected:
  std::unique_ptr<FakeAgent> NewAgent(const std::string& id, int slots) {
    return std::make_unique<FakeAgent>(server_.server().addresses().worker_address, id, slots);
  }

  absl::StatusOr<Worker> GetWorker(const std::string& id) {
    v1::GetWorkerRequest request;
    request.set_name("workers/" + id);
    return server_.Call(server_.workers.get(), &v1::WorkerAdminService::Stub::GetWorker, request);
  }

  // Polls with a deadline: the state follows from messages that are not answered.
  TrainingJob AwaitState(const std::string& id, TrainingJob::State state) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (true) {
      auto job = server_.Get(id);
      if (!job.ok() || job->state() == state || absl::Now() > deadline) {
        EXPECT_TRUE(job.ok() && job->state() == state)
            << (job.ok() ? job->ShortDebugString() : job.status().ToString());
        return job.ok() ? *job : TrainingJob();
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
  }

  // Takes the assignments of all ranks of one generation, which must be on this agent.
  static std::vector<Fence> TakeAssignments(FakeAgent* agent, int ranks) {
    std::vector<Fence> fences;
    for (int i = 0; i < ranks; ++i) {
      auto message = agent->Await(ConnectResponse::kAssignment);
      if (!message.has_value()) {
        ADD_FAILURE() << "no assignment";
        break;
      }
      EXPECT_EQ(message->assignment().world_size(), ranks);
      EXPECT_TRUE(message->assignment().has_spec());
      fences.push_back(message->assignment().fence());
    }
    return fences;
  }

  // Exchanges addresses and reports every rank ready.
  static void Connect(FakeAgent* agent, const std::vector<Fence>& fences) {
    for (const Fence& fence : fences) {
      ConnectRequest request;
      *request.mutable_rank_address()->mutable_fence() = fence;
      request.mutable_rank_address()->set_address(absl::StrCat("address-", fence.rank()));
      agent->Send(std::move(request));
    }
    for (size_t i = 0; i < fences.size(); ++i) {
      const auto peers = agent->Await(ConnectResponse::kPeerAddresses);
      ASSERT_TRUE(peers.has_value());
      ASSERT_EQ(static_cast<size_t>(peers->peer_addresses().addresses_size()), fences.size());
    }
    for (const Fence& fence : fences) {
      ConnectRequest request;
      *request.mutable_rank_ready()->mutable_fence() = fence;
      agent->Send(std::move(request));
    }
    for (size_t i = 0; i < fences.size(); ++i) {
      ASSERT_TRUE(agent->Await(ConnectResponse::kStart).has_value());
    }
  }

  static ConnectRequest Steps(const Fence& fence, int64_t first, int64_t last) {
    ConnectRequest request;
    *request.mutable_step_reports()->mutable_fence() = fence;
    for (int64_t step = first; step <= last; ++step) {
      v1::StepMetrics* row = request.mutable_step_reports()->add_steps();
      row->set_step(step);
      row->set_loss(5.0 / static_cast<double>(step));
      row->set_generation(fence.generation());
      row->set_tokens_per_second(1'000);
    }
    return request;
  }

  static ConnectRequest Exit(const Fence& fence, int slot, int code, int64_t step) {
    ConnectRequest request;
    auto* exited = request.mutable_rank_exited();
    *exited->mutable_fence() = fence;
    exited->set_exit_code(code);
    exited->set_step(step);
    exited->set_slot(slot);
    return request;
  }

  static ConnectRequest Log(const Fence& fence, int64_t offset, const std::string& data) {
    ConnectRequest request;
    auto* chunk = request.mutable_log_chunk();
    *chunk->mutable_fence() = fence;
    chunk->set_offset(offset);
    chunk->set_data(data);
    return request;
  }

  RunningServer server_;
};

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

TEST_F(WorkerPlaneTest, APieceOfALogThatCannotBeStoredIsCountedAndAskedForAgain) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("talks"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  // A file where the job's folder should be.
  const std::string in_the_way =
      absl::StrCat(server_.options().data_dir, "/logs/", fences[0].uid());
  std::filesystem::create_directories(std::filesystem::path(in_the_way).parent_path());
  std::ofstream(in_the_way) << "x";
  const std::string line = "2026-11-21T20:00:00.000001Z first\n";
  const std::string address = server_.server().addresses().metrics_address;
  EXPECT_EQ(ScrapeValue(address, kDroppedChunks), 0);
  agent->Send(Log(fences[0], 0, line));
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (ScrapeValue(address, kDroppedChunks) < 1 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(ScrapeValue(address, kDroppedChunks), 1);

  std::filesystem::remove(in_the_way);
  agent->Send(Log(fences[0], std::ssize(line), line));
  const auto position = agent->Await(ConnectResponse::kLogPosition);
  ASSERT_TRUE(position.has_value()) << "the stream has gone on, and the gap is noticed";
  EXPECT_EQ(position->log_position().offset(), 0);
  EXPECT_EQ(position->log_position().fence().uid(), fences[0].uid());
}

TEST_F(WorkerPlaneTest, ALogChunkHasTheSizeOfTheContract) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("talks"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  std::string data(256 << 10, 'x');
  data.back() = '\n';
  agent->Send(Log(fences[0], 0, data));
  agent->Send(Log(fences[0], std::ssize(data), "y" + data));
  EXPECT_THAT(agent->AwaitEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 262144")));
}

TEST_F(WorkerPlaneTest, LogsAreReadByRankSinceAndTail) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("talks"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  std::string data;
  for (int i = 0; i < 100; ++i) {
    absl::StrAppendFormat(&data, "2026-11-21T20:00:%02d.000000Z line %d\n", i % 60, i);
  }
  data.resize(data.find("20:00:00", 100));  // the first minute only
  data.resize(data.rfind('\n') + 1);
  agent->Send(Log(fences[0], 0, data));
  agent->SendHeartbeat({});

  const auto read = [this](const std::function<void(v1::StreamLogsRequest*)>& change) {
    v1::StreamLogsRequest request;
    request.set_name(RunningServer::NameOf("talks"));
    change(&request);
    StreamReader<v1::StreamLogsResponse> reader(
        [&](grpc::ClientContext* context) { return server_.logs->StreamLogs(context, request); });
    std::vector<std::string> texts;
    std::string token;
    while (auto batch = reader.Next()) {
      for (const auto& line : batch->lines()) {
        texts.push_back(line.text());
      }
      token = batch->resume_token();
    }
    const absl::Status status = reader.AwaitEnd();
    EXPECT_TRUE(status.ok()) << status;
    texts.push_back(token);
    return texts;
  };
  std::vector<std::string> all;
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  do {
    all = read([](auto*) {});
  } while (all.size() < 61 && absl::Now() < deadline);
  ASSERT_EQ(all.size(), 61U);
  EXPECT_EQ(all[0], "line 0");
  EXPECT_EQ(all[59], "line 59");
  EXPECT_EQ(read([](auto* r) { r->set_tail_lines(5); })[0], "line 55");
  // 20:00:40 and later: twenty lines and the token.
  EXPECT_EQ(read([](auto* r) { r->mutable_since()->set_seconds(1'795'291'240); }).size(), 21U);
  // Everything is read: the token goes on at the end.
  EXPECT_EQ(read([&](auto* r) { r->set_resume_token(all.back()); }).size(), 1U);

  const auto refused = [this](const std::function<void(v1::StreamLogsRequest*)>& change) {
    v1::StreamLogsRequest request;
    request.set_name(RunningServer::NameOf("talks"));
    change(&request);
    return StreamReader<v1::StreamLogsResponse>([&](grpc::ClientContext* context) {
             return server_.logs->StreamLogs(context, request);
           })
        .AwaitEnd();
  };
  EXPECT_THAT(refused([](auto* r) { r->set_rank(7); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank")));
  EXPECT_THAT(refused([](auto* r) { r->set_generation(9); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("generation")));
  EXPECT_THAT(refused([](auto* r) { r->set_tail_lines(-1); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tail_lines")));
  EXPECT_THAT(refused([](auto* r) { r->set_resume_token("x"); }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("resume_token")));
  EXPECT_THAT(refused([](auto* r) { r->set_name(RunningServer::NameOf("absent")); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
}

}  // namespace
}  // namespace lasp::server
