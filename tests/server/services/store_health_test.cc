// A disk that cannot be written: users and probes are told, and nothing needs a restart afterwards.
#include <thread>

#include "tests/server/services/fake_agent.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/support/sqlite_fault_vfs.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::DiskFaults;

constexpr char kVfs[] = "services-disk";

class StoreHealthTest : public ::testing::Test {
 protected:
  static constexpr size_t kMaxQueuedBytes = 20'000;

  static DiskFaults* Disk() {
    static DiskFaults* const disk = [] {
      auto* const made = new DiskFaults;
      testing::RegisterFaultVfs(kVfs, made);
      return made;
    }();
    return disk;
  }

  static ServerOptions OnFaultyDisk() {
    Disk();
    ServerOptions options;
    options.core.store_vfs = kVfs;
    options.core.max_queued_agent_bytes = kMaxQueuedBytes;
    return options;
  }

  // Tries until creating a job gives `code`, at most ten seconds.
  absl::Status CreateUntil(absl::StatusCode code) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    absl::Status status;
    do {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
      v1::TrainingJob job;
      status = FromGrpcStatus(
          stub_->CreateTrainingJob(&context, RunningServer::CreateRequest(""), &job));
    } while (status.code() != code && absl::Now() < deadline);
    return status;
  }

  // Whatever a test that failed has left.
  void TearDown() override { Disk()->full = false; }

  RunningServer server_{OnFaultyDisk()};
  // Without the retries of NewChannel, which would hide what the server says.
  const std::unique_ptr<v1::TrainingJobService::Stub> stub_ = v1::TrainingJobService::NewStub([&] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    return grpc::CreateCustomChannel(server_.server().addresses().api_address,
                                     grpc::InsecureChannelCredentials(), arguments);
  }());
};

TEST_F(StoreHealthTest, AFullDiskIsToldAndMendsItself) {
  const auto before = server_.Create("before");
  LASP_ASSERT_OK(before);
  Disk()->full = true;
  const absl::Status refused = CreateUntil(absl::StatusCode::kUnavailable);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
  EXPECT_EQ(ErrorReason(refused), "STORE_UNAVAILABLE");
  // What is stored can still be read.
  LASP_EXPECT_OK(server_.Get("before"));

  Disk()->full = false;
  LASP_EXPECT_OK(CreateUntil(absl::StatusCode::kOk));
  const auto after = server_.Get("before");
  LASP_ASSERT_OK(after);
  EXPECT_EQ(after->uid(), before->uid());
}

// What agents report while the disk fails stays with them: it neither fills the coordinator's
// memory nor costs them their streams.
TEST_F(StoreHealthTest, ReportsThatCannotBeStoredHoldTheirStream) {
  constexpr int kReports = 2'000;
  FakeAgent agent(server_.server().addresses().worker_address, "host-a", 1);
  ASSERT_TRUE(agent.Register());
  LASP_ASSERT_OK(server_.Create("reports"));
  const auto assigned = agent.Await(v1::ConnectResponse::kAssignment);
  ASSERT_TRUE(assigned.has_value());
  Disk()->full = true;
  EXPECT_EQ(CreateUntil(absl::StatusCode::kUnavailable).code(), absl::StatusCode::kUnavailable);

  v1::ConnectRequest report;
  *report.mutable_step_reports()->mutable_fence() = assigned->assignment().fence();
  for (int step = 1; step <= 10; ++step) {
    v1::StepMetrics* row = report.mutable_step_reports()->add_steps();
    row->set_step(step);
    row->set_loss(1.0 / step);
    row->set_tokens_per_second(1'000);
  }
  std::atomic<int64_t> last{0};
  // It waits where the stream is not read on.
  std::thread sender([&] {
    for (int i = 0; i < kReports; ++i) {
      last = agent.Send(report);
    }
  });
  const std::string address = server_.server().addresses().metrics_address;
  double most = 0;
  for (const absl::Time end = absl::Now() + absl::Seconds(1); absl::Now() < end;) {
    most = std::max(most, ScrapeValue(address, "lasp_controller_queued_agent_bytes"));
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_GE(most, kMaxQueuedBytes);
  EXPECT_LT(most, kMaxQueuedBytes + report.ByteSizeLong() + 1'000);
  EXPECT_EQ(agent.AwaitEnd(absl::ZeroDuration()).code(), absl::StatusCode::kDeadlineExceeded);

  Disk()->full = false;
  sender.join();
  EXPECT_TRUE(agent.AwaitAck(last, absl::Seconds(30)));
  LASP_EXPECT_OK(CreateUntil(absl::StatusCode::kOk));
}

// Nobody waits for room for ever: neither an agent that leaves nor a coordinator that stops.
TEST_F(StoreHealthTest, AStreamThatIsHeldCanEnd) {
  auto agent =
      std::make_unique<FakeAgent>(server_.server().addresses().worker_address, "host-a", 1);
  ASSERT_TRUE(agent->Register());
  LASP_ASSERT_OK(server_.Create("held"));
  const auto assigned = agent->Await(v1::ConnectResponse::kAssignment);
  ASSERT_TRUE(assigned.has_value());
  Disk()->full = true;
  EXPECT_EQ(CreateUntil(absl::StatusCode::kUnavailable).code(), absl::StatusCode::kUnavailable);
  v1::ConnectRequest ready;
  *ready.mutable_rank_ready()->mutable_fence() = assigned->assignment().fence();
  for (int i = 0; i < 100; ++i) {
    agent->Send(ready);
  }
  agent = nullptr;
  Disk()->full = false;
  LASP_EXPECT_OK(CreateUntil(absl::StatusCode::kOk));

  // Again, and now the coordinator goes.
  agent = std::make_unique<FakeAgent>(server_.server().addresses().worker_address, "host-b", 1);
  ASSERT_TRUE(agent->Register());
  Disk()->full = true;
  EXPECT_EQ(CreateUntil(absl::StatusCode::kUnavailable).code(), absl::StatusCode::kUnavailable);
  for (int i = 0; i < 100; ++i) {
    agent->Send(ready);
  }
  const absl::Time start = absl::Now();
  server_.server().Stop(absl::Seconds(1));
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
  EXPECT_EQ(agent->AwaitEnd().code(), absl::StatusCode::kUnavailable);
  Disk()->full = false;
}

}  // namespace
}  // namespace lasp::server
