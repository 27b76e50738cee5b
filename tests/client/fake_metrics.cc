// The fake coordinator's step metrics.
#include <utility>

#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

class Metrics final : public lasp::v1::MetricsService::Service {
 public:
  explicit Metrics(FakeServerState* state) : state_(*state) {}

  grpc::Status QueryMetrics(grpc::ServerContext*, const lasp::v1::QueryMetricsRequest* request,
                            lasp::v1::QueryMetricsResponse* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.query = *request;
      for (const auto& step : state_.steps) {
        if (step.step() >= request->from_step() &&
            (request->to_step() == 0 || step.step() <= request->to_step()) &&
            response->steps_size() < request->max_points()) {
          *response->add_steps() = step;
        }
      }
      return absl::OkStatus();
    });
  }

  // Two steps a message.
  grpc::Status StreamMetrics(grpc::ServerContext*, const lasp::v1::StreamMetricsRequest* request,
                             grpc::ServerWriter<lasp::v1::StreamMetricsResponse>* writer) override {
    MutexLock lock(&state_.mutex);
    state_.step_stream = *request;
    lasp::v1::StreamMetricsResponse response;
    for (const auto& step : state_.steps) {
      const bool first = step.generation() == request->from_generation() ||
                         (request->from_generation() == 0 &&
                          step.generation() == state_.steps.front().generation());
      if (step.generation() >= request->from_generation() &&
          (!first || step.step() >= request->from_step())) {
        *response.add_steps() = step;
      }
      if (response.steps_size() == 2) {
        writer->Write(response);
        response.Clear();
        if (const absl::Status broken = std::exchange(state_.break_steps, absl::OkStatus());
            !broken.ok()) {
          return ToGrpcStatus(broken);
        }
      }
    }
    writer->Write(response);
    return grpc::Status::OK;
  }

 private:
  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeMetrics(FakeServerState* state) {
  return std::make_unique<Metrics>(state);
}

}  // namespace lasp::client
