// A coordinator in this process, on real sockets, with stubs to talk to it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "lasp/v1/checkpoint_service.grpc.pb.h"
#include "lasp/v1/log_service.grpc.pb.h"
#include "lasp/v1/metrics_service.grpc.pb.h"
#include "lasp/v1/server_service.grpc.pb.h"
#include "lasp/v1/training_job_service.grpc.pb.h"
#include "lasp/v1/worker_admin_service.grpc.pb.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_conversion.h"
#include "server/server.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {

// A spec of a world of `ranks` that reads corpus.txt.
inline v1::TrainingSpec SmallSpec(int ranks) {
  v1::TrainingSpec spec;
  spec.mutable_model()->set_architecture(v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  spec.mutable_model()->set_layers(2);
  spec.mutable_model()->set_hidden_size(64);
  spec.mutable_model()->set_heads(2);
  spec.mutable_model()->set_glu_size(128);
  spec.mutable_model()->set_vocab_size(256);
  spec.mutable_data()->add_train_paths("corpus.txt");
  spec.mutable_data()->set_format(v1::DataSpec::FORMAT_BYTES);
  spec.mutable_data()->set_sequence_length(64);
  spec.mutable_optimizer()->set_learning_rate(1e-3);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(ranks);
  spec.set_global_batch_size(2);
  spec.set_max_steps(10);
  return spec;
}

class RunningServer {
 public:
  // Limits as in `options`; folder, addresses and roots are set here.
  explicit RunningServer(ServerOptions options = {}) : options_(std::move(options)) {
    folder_.Write("corpus.txt", std::string(100'000, 'x'));
    options_.data_dir = folder_.Join("data");
    options_.api_address = "127.0.0.1:0";
    options_.worker_address = "127.0.0.1:0";
    options_.health_address = "127.0.0.1:0";
    options_.metrics_address = "127.0.0.1:0";
    options_.path_roots = {folder_.path()};
    Start();
  }

  void Start() {
    auto server = Server::Start(options_);
    if (!server.ok()) {
      ADD_FAILURE() << server.status();
      std::abort();
    }
    server_ = *std::move(server);
    channel_ = NewChannel(server_->addresses().api_address);
    jobs = v1::TrainingJobService::NewStub(channel_);
    checkpoints = v1::CheckpointService::NewStub(channel_);
    metrics = v1::MetricsService::NewStub(channel_);
    logs = v1::LogService::NewStub(channel_);
    workers = v1::WorkerAdminService::NewStub(channel_);
    info = v1::ServerService::NewStub(channel_);
  }

  // The same store on new ports.
  void Restart() {
    server_.reset();
    Start();
  }

  Server& server() { return *server_; }

  const ServerOptions& options() const { return options_; }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  const testing::TempDirectory& folder() const { return folder_; }

  // The answer, or the error with its details.
  template <typename Stub, typename Request, typename Response>
  static absl::StatusOr<Response> Call(Stub* stub,
                                       grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                    const Request&, Response*),
                                       const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    Response response;
    absl::Status status = FromGrpcStatus((stub->*method)(&context, request, &response));
    if (!status.ok()) {
      return status;
    }
    return response;
  }

  static v1::CreateTrainingJobRequest CreateRequest(const std::string& id, int ranks = 1) {
    v1::CreateTrainingJobRequest request;
    request.set_parent("projects/default");
    request.set_training_job_id(id);
    *request.mutable_training_job()->mutable_spec() = SmallSpec(ranks);
    return request;
  }

  absl::StatusOr<v1::TrainingJob> Create(const v1::CreateTrainingJobRequest& request) {
    return Call(jobs.get(), &v1::TrainingJobService::Stub::CreateTrainingJob, request);
  }

  absl::StatusOr<v1::TrainingJob> Create(const std::string& id, int ranks = 1) {
    return Create(CreateRequest(id, ranks));
  }

  absl::StatusOr<v1::TrainingJob> Get(const std::string& id) {
    v1::GetTrainingJobRequest request;
    request.set_name(NameOf(id));
    return Call(jobs.get(), &v1::TrainingJobService::Stub::GetTrainingJob, request);
  }

  absl::StatusOr<v1::TrainingJob> Cancel(const std::string& id) {
    v1::CancelTrainingJobRequest request;
    request.set_name(NameOf(id));
    return Call(jobs.get(), &v1::TrainingJobService::Stub::CancelTrainingJob, request);
  }

  static std::string NameOf(const std::string& id) { return "projects/default/trainingJobs/" + id; }

  std::unique_ptr<v1::TrainingJobService::Stub> jobs;
  std::unique_ptr<v1::CheckpointService::Stub> checkpoints;
  std::unique_ptr<v1::MetricsService::Stub> metrics;
  std::unique_ptr<v1::LogService::Stub> logs;
  std::unique_ptr<v1::WorkerAdminService::Stub> workers;
  std::unique_ptr<v1::ServerService::Stub> info;

 private:
  const testing::TempDirectory folder_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace lasp::server
