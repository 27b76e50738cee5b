// A coordinator of a test's own: the user-facing services on a real socket, with jobs, workers,
// steps and log lines that the test puts there.
#pragma once

#include <grpcpp/server.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/event_service.grpc.pb.h"
#include "lasp/v1/log_service.grpc.pb.h"
#include "lasp/v1/metrics_service.grpc.pb.h"
#include "lasp/v1/server_service.grpc.pb.h"
#include "lasp/v1/training_job_service.grpc.pb.h"
#include "lasp/v1/worker_admin_service.grpc.pb.h"

namespace lasp::client {

// Thread-safe.
class FakeServer {
 public:
  // Listens on a free port of 127.0.0.1, or on `port`.
  explicit FakeServer(int port = 0);
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  int port() const { return port_; }

  // Adds or replaces a job, and tells the watchers.
  void PutJob(const lasp::v1::TrainingJob& job);
  // Replaces a job whose end the test decides: called for each Watch that begins.
  void OnWatch(std::function<void(FakeServer*)> callback);
  void PutWorker(const lasp::v1::Worker& worker);
  void SetSteps(std::vector<lasp::v1::StepMetrics> steps);
  // The next stream of steps ends after its first message.
  void BreakNextSteps(
      const absl::Status& status = absl::UnavailableError("the coordinator is stopping"));
  void SetLogLines(std::vector<lasp::v1::LogLine> lines);
  // Called for each list of events before it is answered.
  void OnListEvents(std::function<void()> callback);
  // Adds an event, and tells the watchers.
  void PutEvent(const lasp::v1::Event& event);
  // Forgets the events up to this sequence, and ends the watches that have not seen them.
  void ForgetEvents(int64_t sequence);
  // Every unary call fails with this.
  void FailWith(const absl::Status& status);
  // Ends every watch that is open, with UNAVAILABLE.
  void BreakWatches();

  // What the last call of each kind asked.
  lasp::v1::CreateTrainingJobRequest last_create();
  std::vector<lasp::v1::UpdateTrainingJobRequest> updates();
  lasp::v1::ListTrainingJobsRequest last_list();
  lasp::v1::WatchTrainingJobsRequest last_watch();
  lasp::v1::ListEventsRequest last_events();
  lasp::v1::WatchEventsRequest last_event_watch();
  lasp::v1::QueryMetricsRequest last_query();
  lasp::v1::StreamMetricsRequest last_steps();
  lasp::v1::StreamLogsRequest last_logs();
  std::string last_request_id();
  lasp::v1::DrainWorkerRequest last_drain();
  int create_count();
  int watch_count();

 private:
  std::unique_ptr<struct FakeServerState> state_;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

// A job `projects/default/trainingJobs/{id}` that is queued.
lasp::v1::TrainingJob QueuedJob(const std::string& id);
// The same at a step.
lasp::v1::TrainingJob RunningJob(const std::string& id, int64_t step);
lasp::v1::TrainingJob SucceededJob(const std::string& id);
lasp::v1::TrainingJob FailedJob(const std::string& id);

}  // namespace lasp::client
