// The fake coordinator's rank logs.
#include "proto/rpc/status_conversion.h"
#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

class Logs final : public lasp::v1::LogService::Service {
 public:
  explicit Logs(FakeServerState* state) : state_(*state) {}

  grpc::Status StreamLogs(grpc::ServerContext*, const lasp::v1::StreamLogsRequest* request,
                          grpc::ServerWriter<lasp::v1::StreamLogsResponse>* writer) override {
    MutexLock lock(&state_.mutex);
    state_.logs = *request;
    lasp::v1::StreamLogsResponse response;
    for (const auto& line : state_.lines) {
      if (!request->has_rank() || request->rank() == line.rank()) {
        *response.add_lines() = line;
      }
    }
    writer->Write(response);
    return ToGrpcStatus(state_.failure);
  }

 private:
  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeLogs(FakeServerState* state) {
  return std::make_unique<Logs>(state);
}

}  // namespace lasp::client
