// The fake coordinator's workers.
#include "absl/strings/str_cat.h"
#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

class Workers final : public lasp::v1::WorkerAdminService::Service {
 public:
  explicit Workers(FakeServerState* state) : state_(*state) {}

  grpc::Status GetWorker(grpc::ServerContext*, const lasp::v1::GetWorkerRequest* request,
                         lasp::v1::Worker* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      return Find(request->name(), response);
    });
  }

  grpc::Status ListWorkers(grpc::ServerContext*, const lasp::v1::ListWorkersRequest*,
                           lasp::v1::ListWorkersResponse* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      for (const auto& worker : state_.workers) {
        *response->add_workers() = worker;
      }
      return absl::OkStatus();
    });
  }

  grpc::Status DrainWorker(grpc::ServerContext*, const lasp::v1::DrainWorkerRequest* request,
                           lasp::v1::Worker* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.drain = *request;
      const absl::Status status = Find(request->name(), response);
      response->set_state(request->undo() ? lasp::v1::Worker::STATE_READY
                                          : lasp::v1::Worker::STATE_DRAINING);
      return status;
    });
  }

 private:
  absl::Status Find(const std::string& name, lasp::v1::Worker* response)
      REQUIRES_LOCK(state_.mutex) {
    for (const auto& worker : state_.workers) {
      if (worker.name() == name) {
        *response = worker;
        return absl::OkStatus();
      }
    }
    return absl::NotFoundError(absl::StrCat("worker ", name, " does not exist"));
  }

  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeWorkers(FakeServerState* state) {
  return std::make_unique<Workers>(state);
}

}  // namespace lasp::client
