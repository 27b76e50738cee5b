// What the services of the fake coordinator share: what a test has put there, and what was asked.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_conversion.h"
#include "tests/client/fake_server.h"

namespace lasp::client {

struct FakeServerState {
  Mutex mutex;
  CondVar changed;
  std::map<std::string, lasp::v1::TrainingJob> jobs GUARDED_BY(mutex);
  // Every form of every job, in order: what watchers are sent.
  std::vector<lasp::v1::TrainingJob> events GUARDED_BY(mutex);
  std::vector<lasp::v1::Worker> workers GUARDED_BY(mutex);
  std::vector<lasp::v1::StepMetrics> steps GUARDED_BY(mutex);
  std::vector<lasp::v1::LogLine> lines GUARDED_BY(mutex);
  // By sequence.
  std::vector<lasp::v1::Event> told GUARDED_BY(mutex);
  int64_t forgotten GUARDED_BY(mutex) = 0;
  lasp::v1::ListEventsRequest list_events GUARDED_BY(mutex);
  lasp::v1::WatchEventsRequest watch_events GUARDED_BY(mutex);
  absl::Status failure GUARDED_BY(mutex);
  std::function<void(FakeServer*)> on_watch GUARDED_BY(mutex);
  std::function<void()> on_list_events GUARDED_BY(mutex);
  bool stopping GUARDED_BY(mutex) = false;
  int breaks GUARDED_BY(mutex) = 0;
  int create_count GUARDED_BY(mutex) = 0;
  int watch_count GUARDED_BY(mutex) = 0;
  lasp::v1::CreateTrainingJobRequest create GUARDED_BY(mutex);
  std::vector<lasp::v1::UpdateTrainingJobRequest> updates GUARDED_BY(mutex);
  lasp::v1::ListTrainingJobsRequest list GUARDED_BY(mutex);
  lasp::v1::WatchTrainingJobsRequest watch GUARDED_BY(mutex);
  lasp::v1::QueryMetricsRequest query GUARDED_BY(mutex);
  lasp::v1::StreamMetricsRequest step_stream GUARDED_BY(mutex);
  // OK: the next stream of steps goes to its end.
  absl::Status break_steps GUARDED_BY(mutex);
  lasp::v1::StreamLogsRequest logs GUARDED_BY(mutex);
  lasp::v1::DrainWorkerRequest drain GUARDED_BY(mutex);
  std::string request_id GUARDED_BY(mutex);

  // For the analysis, which does not follow `body` into Run.
  void AssertHeld() LASP_THREAD_ATTRIBUTE(assert_capability(mutex)) {}

  // The common part of every unary call. `body` runs under the lock.
  grpc::Status Run(const std::function<absl::Status()>& body) {
    MutexLock lock(&mutex);
    return ToGrpcStatus(failure.ok() ? body() : failure);
  }

  absl::StatusOr<lasp::v1::TrainingJob*> Find(const std::string& name) REQUIRES_LOCK(mutex) {
    const auto found = jobs.find(name);
    if (found == jobs.end()) {
      return ErrorWithReason(absl::StatusCode::kNotFound,
                             absl::StrCat("training job ", name, " does not exist"),
                             "JOB_NOT_FOUND");
    }
    return &found->second;
  }

  void Put(const lasp::v1::TrainingJob& job) REQUIRES_LOCK(mutex) {
    jobs[job.name()] = job;
    events.push_back(job);
    changed.NotifyAll();
  }
};

// The services, a file each; `server` and `state` outlive them.
std::unique_ptr<grpc::Service> FakeJobs(FakeServer* server, FakeServerState* state);
std::unique_ptr<grpc::Service> FakeMetrics(FakeServerState* state);
std::unique_ptr<grpc::Service> FakeLogs(FakeServerState* state);
std::unique_ptr<grpc::Service> FakeWorkers(FakeServerState* state);
std::unique_ptr<grpc::Service> FakeEvents(FakeServer* server, FakeServerState* state);
std::unique_ptr<grpc::Service> FakeInfo(FakeServerState* state);

}  // namespace lasp::client
