// The fake coordinator's the coordinator itself.
#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

class Info final : public lasp::v1::ServerService::Service {
 public:
  explicit Info(FakeServerState* state) : state_(*state) {}

  grpc::Status GetServerInfo(grpc::ServerContext*, const lasp::v1::GetServerInfoRequest*,
                             lasp::v1::ServerInfo* response) override {
    return state_.Run([&] {
      response->set_version("9.9.9");
      response->set_revision("feedface");
      response->add_api_versions("lasp.v1");
      return absl::OkStatus();
    });
  }

 private:
  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeInfo(FakeServerState* state) {
  return std::make_unique<Info>(state);
}

}  // namespace lasp::client
