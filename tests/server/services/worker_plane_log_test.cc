// Logs of ranks over the worker plane: what is stored, dropped, asked for again and read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/server/services/scrape.h"
#include "tests/server/services/stream_reader.h"
#include "tests/server/services/worker_plane_fixture.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using WorkerPlaneLogTest = WorkerPlaneFixture;
using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;
using v1::ConnectResponse;
using v1::Fence;

constexpr char kDroppedChunks[] = "lasp_log_chunks_dropped_total";

TEST_F(WorkerPlaneLogTest, APieceOfALogThatCannotBeStoredIsCountedAndAskedForAgain) {
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

TEST_F(WorkerPlaneLogTest, AnAgentWritesTheLogsOfItsOwnRanksOnly) {
  const auto agent = NewAgent("host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("talks"));
  const std::vector<Fence> fences = TakeAssignments(agent.get(), 1);
  ASSERT_EQ(fences.size(), 1U);
  const auto other = NewAgent("host-b", 1);
  ASSERT_TRUE(other->Register());
  other->Send(Log(fences[0], 0, "2026-11-21T20:00:00.000000Z forged\n"));
  v1::RankStatus claimed;
  *claimed.mutable_fence() = fences[0];
  other->SendHeartbeat({claimed});
  // It is told to stop what is not its own, and all it said before has been taken by then.
  ASSERT_TRUE(other->Await(ConnectResponse::kStop).has_value());
  agent->Send(Log(fences[0], 0, "2026-11-21T20:00:00.000000Z genuine\n"));
  v1::StreamLogsRequest request;
  request.set_name(RunningServer::NameOf("talks"));
  request.set_follow(true);
  StreamReader<v1::StreamLogsResponse> reader(
      [&](grpc::ClientContext* context) { return server_.logs->StreamLogs(context, request); });
  const auto first = reader.Next();
  ASSERT_TRUE(first.has_value());
  ASSERT_EQ(first->lines_size(), 1);
  EXPECT_EQ(first->lines(0).text(), "genuine");
}

TEST_F(WorkerPlaneLogTest, ALogChunkHasTheSizeOfTheContract) {
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

TEST_F(WorkerPlaneLogTest, LogsAreReadByRankSinceAndTail) {
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
