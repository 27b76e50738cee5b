// A disk that cannot be written: users and probes are told, and nothing needs a restart afterwards.
#include "tests/server/services/running_server.h"
#include "tests/support/sqlite_fault_vfs.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::DiskFaults;

constexpr char kVfs[] = "services-disk";

class StoreHealthTest : public ::testing::Test {
 protected:
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

}  // namespace
}  // namespace lasp::server
