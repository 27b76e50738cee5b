// lasp-worker to its surroundings: flags, ports, folders, health, metrics.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/rpc/channel.h"
#include "tests/worker/agent/http_get.h"
#include "tests/worker/agent/worker_program_fixture.h"

namespace lasp::worker {
namespace {

using ::testing::HasSubstr;
using testing::HttpGet;
using ::testing::Not;
using testing::Spec;
using testing::WorkerProcess;

using WorkerSurroundingsTest = testing::WorkerProgramFixture;

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

TEST_F(WorkerSurroundingsTest, SecondAgentOnAFolderNamesTheHolder) {
  StartWorker();
  WorkerProcess second(Arguments());
  EXPECT_EQ(second.Wait(absl::Seconds(5)), 1);
  EXPECT_THAT(second.ReadStderr(), HasSubstr(absl::StrCat("process ", worker_->pid())));
  EXPECT_THAT(second.ReadStderr(), HasSubstr(folder_.Join("work")));
}

TEST_F(WorkerSurroundingsTest, TakenPortIsNamed) {
  StartWorker();
  for (const char* flag : {"health_address", "metrics_address"}) {
    const std::string taken = serving_[flag].get<std::string>();
    WorkerProcess second({absl::StrCat("--", flag, "=", taken), "--health_address=127.0.0.1:0",
                          absl::StrCat("--work_dir=", folder_.Join("other")),
                          std::string(flag) == "metrics_address" ? "--worker_id=w2"
                                                                 : "--metrics_address=127.0.0.1:0",
                          absl::StrCat("--", flag, "=", taken)});
    EXPECT_EQ(second.Wait(absl::Seconds(5)), 1);
    EXPECT_THAT(second.ReadStderr(), HasSubstr(taken));
  }
}

TEST_F(WorkerSurroundingsTest, KeepsItsIdInItsFolder) {
  StartWorker();
  worker_->Signal(SIGTERM);
  ASSERT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  StartWorker({"--worker_id="});
  EXPECT_EQ(serving_["worker_id"], "w1");
}

TEST_F(WorkerSurroundingsTest, RefusesBadFlagsByName) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"--no_such_flag=1", "no_such_flag"},
      {"--checkpoint_root=relative", "checkpoint_root"},
      {"--cpu_slots=many", "cpu_slots"},
      {"--cpu_slots=-1", "cpu_slots"},
      {"--cpu_slots=100000", "cpu_slots"},
      {"--gpus=", "gpus"},
      {"--server=nowhere", "server"},
      {"--server=10.0.0.1:7071", "deploy/credentials"},
      {"--tls_ca=/nowhere", "tls_cert"},
      {"--worker_id=not/an/id", "not/an/id"},
      {"--rank_address=", "rank_address"},
      {"--drain_timeout=soon", "drain_timeout"},
      {"--drain_timeout=-1s", "drain_timeout"},
      {"--log_level=loud", "log_level"},
      {"--log_files=0", "log_files"},
      {"--log_file_bytes=1", "log_file_bytes"},
      {"--retain_log_bytes=-1", "retain_log_bytes"},
      {"--log_ship_bytes_per_second=0", "log_ship_bytes_per_second"},
      {"--metrics_address=here", "here"},
      {"--health_address", "health_address"},
      {"positional", "positional"},
  };
  for (const auto& [flag, named] : table) {
    WorkerProcess process(Arguments({flag}));
    EXPECT_EQ(process.Wait(absl::Seconds(5)), 2) << flag;
    EXPECT_THAT(process.ReadStderr(), HasSubstr(named)) << flag;
  }
}

TEST_F(WorkerSurroundingsTest, OffersTheGpusOfTheHost) {
  setenv("LD_LIBRARY_PATH", FAKE_NVML_FOLDER, 1);
  setenv("LASP_FAKE_NVML", "gpus=2 links=pairs", 1);
  StartWorker({"--gpus=all", absl::StrCat("--cuda_rank_binary=", FAKE_RANK_BINARY)});
  EXPECT_EQ(serving_["gpus"], "GPU-00000000,GPU-00000001");
  EXPECT_EQ(serving_["cpu_slots"], "4");
  const lasp::v1::Hello& hello = coordinator_.last_hello;
  ASSERT_EQ(hello.slots_size(), 6);
  EXPECT_EQ(hello.slots(1).kind(), lasp::v1::Slot::KIND_GPU);
  EXPECT_EQ(hello.slots(1).gpu().uuid(), "GPU-00000001");
  EXPECT_EQ(hello.slots(1).gpu().links(0).slot(), 0);
  EXPECT_EQ(hello.slots(2).kind(), lasp::v1::Slot::KIND_CPU);
  // A rank on a GPU, as the coordinator would place it.
  coordinator_.Submit("job", 1, 1, Spec(3, {"print=env"}));
  ASSERT_TRUE(WaitForExits(1));
  EXPECT_TRUE(coordinator_.WaitFor([&] {
    return absl::StrContains(coordinator_.logs[{1, 0}].text,
                             "env CUDA_VISIBLE_DEVICES=GPU-00000000\n");
  }));

  // One by name; and a name that is none.
  worker_->Signal(SIGTERM);
  ASSERT_EQ(worker_->Wait(absl::Seconds(5)), 0);
  StartWorker({"--gpus=1", absl::StrCat("--cuda_rank_binary=", FAKE_RANK_BINARY)});
  EXPECT_EQ(serving_["gpus"], "GPU-00000001");
  WorkerProcess wrong(Arguments({"--gpus=2", absl::StrCat("--work_dir=", folder_.Join("other"))}));
  EXPECT_EQ(wrong.Wait(absl::Seconds(5)), 2);
  EXPECT_THAT(wrong.ReadStderr(), HasSubstr("--gpus: there is no GPU '2'"));
  unsetenv("LD_LIBRARY_PATH");
  unsetenv("LASP_FAKE_NVML");
}

TEST_F(WorkerSurroundingsTest, ABrokenDriverIsAWarning) {
  setenv("LD_LIBRARY_PATH", FAKE_NVML_FOLDER, 1);
  setenv("LASP_FAKE_NVML", "gpus=2 init=9", 1);
  StartWorker({"--gpus=all"});
  EXPECT_EQ(serving_["gpus"], "none");
  EXPECT_EQ(coordinator_.last_hello.slots_size(), 4);
  EXPECT_THAT(worker_->ReadStderr(), HasSubstr("Driver Not Loaded"));
  WorkerProcess asked(Arguments({"--gpus=0", absl::StrCat("--work_dir=", folder_.Join("other"))}));
  EXPECT_EQ(asked.Wait(absl::Seconds(5)), 1);
  EXPECT_THAT(asked.ReadStderr(), HasSubstr("Driver Not Loaded"));
  unsetenv("LD_LIBRARY_PATH");
  unsetenv("LASP_FAKE_NVML");
}

TEST_F(WorkerSurroundingsTest, HealthSaysWhetherItIsConnected) {
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

TEST_F(WorkerSurroundingsTest, MetricsShowAgentAndRanks) {
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
