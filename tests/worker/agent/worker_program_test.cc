// lasp-worker as a process, with real (fake) ranks, against a coordinator over real gRPC.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/fake_coordinator.h"
#include "tests/worker/agent/http_get.h"
#include "tests/worker/agent/worker_process.h"
#include "worker/agent/rank_ledger.h"

namespace lasp::worker {
namespace {

using testing::FakeCoordinator;
using ::testing::HasSubstr;
using testing::HttpGet;
using ::testing::Not;
using testing::RanksWithMark;
using testing::WaitForRanks;
using testing::WorkerProcess;

lasp::v1::TrainingSpec Spec(int64_t steps, const std::vector<std::string>& options = {}) {
  lasp::v1::TrainingSpec spec;
  spec.set_max_steps(steps);
  for (const std::string& option : options) {
    spec.mutable_data()->add_train_paths(option);
  }
  return spec;
}

// A process that only a signal ends.
pid_t StartSleeper() {
  const pid_t pid = fork();
  if (pid == 0) {
    for (;;) {
      pause();
    }
  }
  return pid;
}

bool IsServing(const std::string& address, const std::string& service) {
  grpc::GenericStub stub(NewChannel(address));
  // HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}, SERVING = 1, by hand.
  std::string bytes;
  if (!service.empty()) {
    bytes = absl::StrCat("\n", std::string(1, static_cast<char>(service.size())), service);
  }
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::ByteBuffer response;
  grpc::Status status;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  grpc::Slice answer;
  return status.ok() && response.DumpToSingleSlice(&answer).ok() &&
         std::string(reinterpret_cast<const char*>(answer.begin()), answer.size()) == "\b\x01";
}

class WorkerProgramTest : public ::testing::Test {
 protected:
  std::vector<std::string> Arguments(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {absl::StrCat("--server=", coordinator_.address()),
                                          "--worker_id=w1",
                                          "--cpu_slots=4",
                                          "--health_address=127.0.0.1:0",
                                          "--metrics_address=127.0.0.1:0",
                                          absl::StrCat("--work_dir=", folder_.Join("work"))};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  void StartWorker(const std::vector<std::string>& more = {}) {
    worker_ = std::make_unique<WorkerProcess>(Arguments(more), mark_);
    serving_ = nlohmann::json::parse(worker_->ReadServingLine(), nullptr, false);
    ASSERT_FALSE(serving_.is_discarded()) << worker_->ReadStderr();
    ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.connected; }));
  }

  void TearDown() override {
    if (HasFailure() && worker_ != nullptr) {
      std::cerr << worker_->ReadStderr();
    }
    worker_.reset();
    EXPECT_TRUE(WaitForRanks(mark_, 0, absl::Seconds(2)));
  }

  bool WaitForExits(size_t count) {
    return coordinator_.WaitFor([&] { return coordinator_.exits.size() == count; });
  }

  void ExpectSteps(int64_t generation, int64_t count) {
    const auto& steps = coordinator_.steps[generation];
    ASSERT_EQ(static_cast<int64_t>(steps.size()), count);
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(steps[static_cast<size_t>(i)].step(), i + 1);
    }
  }

  const std::string mark_ = NewUuid();
  ::lasp::testing::TempDirectory folder_;
  FakeCoordinator coordinator_;
  nlohmann::json serving_;
  std::unique_ptr<WorkerProcess> worker_;

  void SetUp() override { coordinator_.Serve(); }
};

TEST_F(WorkerProgramTest, RunsAWholeJob) {
  StartWorker();
  EXPECT_EQ(serving_["worker_id"], "w1");
  EXPECT_EQ(coordinator_.last_hello.slots_size(), 4);
  coordinator_.Submit("job", 1, 3, Spec(50));
  ASSERT_TRUE(WaitForExits(3));
  for (const auto& [rank, exited] : coordinator_.exits) {
    EXPECT_EQ(exited.exit_code(), 0) << exited.DebugString();
    EXPECT_EQ(exited.status().code(), 0);
    EXPECT_EQ(exited.step(), 50);
    EXPECT_EQ(exited.slot(), rank);
  }
  ExpectSteps(1, 50);
  EXPECT_EQ(coordinator_.repeated_steps, 0);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(coordinator_.WaitFor([&] {
      return absl::StrContains(coordinator_.logs[{1, rank}].text,
                               absl::StrCat("Z rank ", rank, " ends after step 50\n"));
    }));
  }
}

TEST_F(WorkerProgramTest, TellsADeadRankWithinASecond) {
  StartWorker();
  coordinator_.Submit("job", 1, 2, Spec(100'000, {"rank=1", "die_at=20", "step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() >= 1; }));
  ASSERT_TRUE(WaitForExits(1));
  const lasp::v1::RankExited& exited = coordinator_.exits.at(1);
  EXPECT_EQ(exited.exit_code(), 128 + SIGKILL);
  EXPECT_EQ(exited.status().message(), "rank 1 was killed by signal 9 (Killed)");
  EXPECT_EQ(exited.step(), 20);

  // From outside, with the clock running.
  const std::vector<pid_t> left = RanksWithMark(mark_);
  ASSERT_EQ(left.size(), 1U);
  const absl::Time killed_at = absl::Now();
  kill(left[0], SIGKILL);
  ASSERT_TRUE(WaitForExits(2));
  EXPECT_LT(absl::Now() - killed_at, absl::Seconds(1));
}

TEST_F(WorkerProgramTest, KilledAgentLeavesNoRank) {
  StartWorker();
  // One of the ranks reads nothing any more and has a child.
  coordinator_.Submit("job", 1, 4,
                      Spec(1'000'000, {"step_ms=1", "rank=2", "hang_at=5", "child=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 20; }));
  ASSERT_EQ(RanksWithMark(mark_).size(), 5U);
  worker_->Signal(SIGKILL);
  EXPECT_EQ(worker_->Wait(absl::Seconds(5)), 128 + SIGKILL);
  // Without the child of a rank: only an agent could end that one.
  EXPECT_TRUE(WaitForRanks(mark_, 1, absl::Seconds(1)));
  for (const pid_t pid : RanksWithMark(mark_)) {
    kill(pid, SIGKILL);
  }
}

TEST_F(WorkerProgramTest, KillsWhatAnEarlierAgentLeft) {
  StartWorker();
  worker_->Signal(SIGTERM);
  ASSERT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  // A process that no death signal ends, recorded as the agent records its ranks; and a record
  // whose number another process has by now.
  const RankLedger ledger(folder_.Join("work/ranks"));
  const pid_t leftover = StartSleeper();
  ASSERT_TRUE(ledger.Record(leftover).ok());
  const pid_t stranger = StartSleeper();
  folder_.Write(absl::StrCat("work/ranks/", stranger), absl::StrCat(stranger, " 1 some-boot\n"));

  StartWorker();
  EXPECT_EQ(kill(leftover, 0), 0) << "a zombie until it is waited for";
  int status = 0;
  EXPECT_EQ(waitpid(leftover, &status, WNOHANG), leftover);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(waitpid(stranger, &status, WNOHANG), 0);
  kill(stranger, SIGKILL);
  waitpid(stranger, &status, 0);
}

TEST_F(WorkerProgramTest, LosesNoStepWhileTheCoordinatorIsAway) {
  StartWorker();
  coordinator_.Submit("job", 1, 2, Spec(1500, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 50; }));
  coordinator_.StopServing();
  // The job goes on, and ends.
  ASSERT_TRUE(WaitForRanks(mark_, 0, absl::Seconds(20)));
  ASSERT_TRUE(coordinator_.exits.empty());
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(2));
  ExpectSteps(1, 1500);
  EXPECT_EQ(coordinator_.connections, 2);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 0);
  EXPECT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 ends after step 1500\n");
  }));
}

TEST_F(WorkerProgramTest, SaysAgainWhatACrashedCoordinatorHasNotAcknowledged) {
  coordinator_.acknowledging = false;
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1800, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 50; }));
  coordinator_.StopServing();
  coordinator_.acknowledging = true;
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(1));
  ExpectSteps(1, 1800);
  EXPECT_GT(coordinator_.repeated_steps, 0);
  // The one that still ran was named.
  EXPECT_EQ(coordinator_.connections, 2);
}

TEST_F(WorkerProgramTest, AdoptedRanksMeetAfterAReconnect) {
  StartWorker();
  // Assigned, and the coordinator is gone before the ranks have said where they listen.
  coordinator_.Submit("job", 1, 3, Spec(30));
  coordinator_.StopServing();
  coordinator_.Serve();
  ASSERT_TRUE(WaitForExits(3));
  ExpectSteps(1, 30);
}

TEST_F(WorkerProgramTest, DrainsOnSigterm) {
  StartWorker();
  coordinator_.Submit("job", 1, 3, Spec(1'000'000, {"step_ms=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(10)), 0);
  ASSERT_TRUE(WaitForExits(3));
  EXPECT_TRUE(coordinator_.draining);
  for (const auto& [rank, exited] : coordinator_.exits) {
    EXPECT_EQ(exited.exit_code(), kRankDrained);
  }
  // All that rank 0 has done is known.
  ExpectSteps(1, coordinator_.exits.at(0).step());
  EXPECT_TRUE(absl::StrContains(coordinator_.logs[{1, 2}].text, "rank 2 ends after step"));
}

TEST_F(WorkerProgramTest, TakesNoRankWhileItDrains) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "ignore_drain=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGINT);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.draining; }));
  coordinator_.Submit("other", 1, 2, Spec(10));
  ASSERT_TRUE(WaitForExits(2));
  EXPECT_EQ(coordinator_.exits.at(1).exit_code(), kRankDrained);
  EXPECT_THAT(coordinator_.exits.at(1).status().message(), HasSubstr("drains"));
  // The second signal kills what does not leave.
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(10)), 0);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 128 + SIGKILL);
}

TEST_F(WorkerProgramTest, KillsAtTheEndOfTheDrainTimeout) {
  StartWorker({"--drain_timeout=300ms"});
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "ignore_drain=1"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 10; }));
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  EXPECT_EQ(coordinator_.exits.at(0).exit_code(), 128 + SIGKILL);
  EXPECT_THAT(coordinator_.exits.at(0).status().message(), HasSubstr("did not drain within 300ms"));
}

TEST_F(WorkerProgramTest, NeitherHeartbeatsNorStepsWaitForAFloodOfLogs) {
  StartWorker({"--log_file_bytes=1048576", "--log_files=2", "--log_ship_bytes_per_second=2097152"});
  // 64 MB of log from each of two ranks.
  coordinator_.Submit("job", 1, 2, Spec(20, {"lines=320000", "line_bytes=180", "step_ms=1"}));
  const int64_t before = coordinator_.heartbeats;
  const absl::Time start = absl::Now();
  ASSERT_TRUE(WaitForExits(2));
  const absl::Duration took = absl::Now() - start;
  RecordProperty("flood_seconds", absl::StrCat(absl::ToDoubleSeconds(took)));
  EXPECT_LT(took, absl::Seconds(20));
  EXPECT_GE(coordinator_.heartbeats - before, took / absl::Milliseconds(400) - 2);
  ExpectSteps(1, 20);
  // What was rotated away before it was sent is named, and the end arrives.
  ASSERT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 ends after step 20\n");
  }));
  const FakeCoordinator::RankLogText& log = coordinator_.logs.begin()->second;
  EXPECT_GT(log.gap_bytes, 0);
  EXPECT_THAT(log.text, HasSubstr(" bytes of this log were dropped]\n"));
}

TEST_F(WorkerProgramTest, ShipsTheLogOfARankAfterAnAgentWasKilled) {
  StartWorker();
  coordinator_.Submit("job", 1, 1, Spec(1'000'000, {"step_ms=1", "lines=100"}));
  ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.steps[1].size() > 1; }));
  coordinator_.StopServing();
  coordinator_.logs.clear();
  worker_->Signal(SIGKILL);
  worker_->Wait(absl::Seconds(5));
  coordinator_.Serve();
  StartWorker();
  EXPECT_TRUE(coordinator_.WaitFor(
      [&] { return absl::StrContains(coordinator_.logs[{1, 0}].text, "rank 0 of 1 begins\n"); }));
}

TEST_F(WorkerProgramTest, SecondAgentOnAFolderNamesTheHolder) {
  StartWorker();
  WorkerProcess second(Arguments(), mark_);
  EXPECT_EQ(second.Wait(absl::Seconds(5)), 1);
  EXPECT_THAT(second.ReadStderr(), HasSubstr(absl::StrCat("process ", worker_->pid())));
  EXPECT_THAT(second.ReadStderr(), HasSubstr(folder_.Join("work")));
}

TEST_F(WorkerProgramTest, TakenPortIsNamed) {
  StartWorker();
  for (const char* flag : {"health_address", "metrics_address"}) {
    const std::string taken = serving_[flag].get<std::string>();
    WorkerProcess second({absl::StrCat("--", flag, "=", taken), "--health_address=127.0.0.1:0",
                          absl::StrCat("--work_dir=", folder_.Join("other")),
                          std::string(flag) == "metrics_address" ? "--worker_id=w2"
                                                                 : "--metrics_address=127.0.0.1:0",
                          absl::StrCat("--", flag, "=", taken)},
                         mark_);
    EXPECT_EQ(second.Wait(absl::Seconds(5)), 1);
    EXPECT_THAT(second.ReadStderr(), HasSubstr(taken));
  }
}

TEST_F(WorkerProgramTest, KeepsItsIdInItsFolder) {
  StartWorker();
  worker_->Signal(SIGTERM);
  ASSERT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  StartWorker({"--worker_id="});
  EXPECT_EQ(serving_["worker_id"], "w1");
}

TEST_F(WorkerProgramTest, RefusesBadFlagsByName) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"--no_such_flag=1", "no_such_flag"},
      {"--cpu_slots=many", "cpu_slots"},
      {"--cpu_slots=-1", "cpu_slots"},
      {"--cpu_slots=100000", "cpu_slots"},
      {"--server=nowhere", "server"},
      {"--server=10.0.0.1:7071", "allow_plaintext"},
      {"--worker_id=not/an/id", "not/an/id"},
      {"--rank_address=", "rank_address"},
      {"--drain_timeout=soon", "drain_timeout"},
      {"--drain_timeout=-1s", "drain_timeout"},
      {"--log_level=loud", "log_level"},
      {"--log_files=0", "log_files"},
      {"--log_file_bytes=1", "log_file_bytes"},
      {"--log_ship_bytes_per_second=0", "log_ship_bytes_per_second"},
      {"--metrics_address=here", "here"},
      {"--health_address", "health_address"},
      {"positional", "positional"},
  };
  for (const auto& [flag, named] : table) {
    WorkerProcess process(Arguments({flag}), mark_);
    EXPECT_EQ(process.Wait(absl::Seconds(5)), 2) << flag;
    EXPECT_THAT(process.ReadStderr(), HasSubstr(named)) << flag;
  }
}

TEST_F(WorkerProgramTest, HealthSaysWhetherItIsConnected) {
  StartWorker();
  const std::string address = serving_["health_address"];
  EXPECT_TRUE(coordinator_.WaitFor([&] { return IsServing(address, "readiness"); }));
  EXPECT_TRUE(IsServing(address, ""));
  EXPECT_TRUE(IsServing(address, "liveness"));
  coordinator_.StopServing();
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (IsServing(address, "readiness") && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_FALSE(IsServing(address, "readiness"));
  EXPECT_TRUE(IsServing(address, "liveness"));
}

TEST_F(WorkerProgramTest, MetricsShowAgentAndRanks) {
  StartWorker();
  coordinator_.Submit("job", 3, 2, Spec(25));
  ASSERT_TRUE(WaitForExits(2));
  const std::string page = HttpGet(serving_["metrics_address"], "/metrics");
  const std::string labels =
      R"(generation="3",rank="0",training_job="projects/default/trainingJobs/job"})";
  for (const std::string& line : std::vector<std::string>{
           "lasp_agent_connected 1\n",
           "lasp_agent_slots{state=\"free\"} 4\n",
           "lasp_agent_ranks_started_total 2\n",
           "lasp_agent_ranks_ended_total{exit_code=\"0\"} 2\n",
           "process_open_fds ",
           "lasp_build_info{component=\"lasp-worker\"",
           "lasp_worker_steps_total{" + labels + " 25\n",
           "lasp_worker_tokens_total{" + labels + " 250\n",
           "lasp_worker_sp_sent_bytes_total{" + labels + " 2500\n",
           "lasp_worker_dp_sent_bytes_total{" + labels + " 25000\n",
           "lasp_worker_current_step{" + labels + " 25\n",
           "lasp_worker_loss{" + labels + " 0.04\n",
       }) {
    EXPECT_THAT(page, HasSubstr(line));
  }
  EXPECT_THAT(page, Not(HasSubstr(R"(lasp_worker_loss{generation="3",rank="1")")));
}

}  // namespace
}  // namespace lasp::worker
