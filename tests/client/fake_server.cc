#include "tests/client/fake_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/channel.h"
#include "tests/client/fake_server_state.h"

namespace lasp::client {

using lasp::v1::TrainingJob;

FakeServer::FakeServer(int port) : state_(std::make_unique<FakeServerState>()) {
  services_.push_back(FakeJobs(this, state_.get()));
  services_.push_back(FakeMetrics(state_.get()));
  services_.push_back(FakeLogs(state_.get()));
  services_.push_back(FakeWorkers(state_.get()));
  services_.push_back(FakeEvents(this, state_.get()));
  services_.push_back(FakeInfo(state_.get()));
  grpc::ServerBuilder builder;
  ApplyServerPolicy(&builder);
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                           &port_);
  for (const auto& service : services_) {
    builder.RegisterService(service.get());
  }
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() {
  {
    MutexLock lock(&state_->mutex);
    state_->stopping = true;
    state_->changed.NotifyAll();
  }
  server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(5)));
}

void FakeServer::PutJob(const TrainingJob& job) {
  MutexLock lock(&state_->mutex);
  state_->Put(job);
}

void FakeServer::OnWatch(std::function<void(FakeServer*)> callback) {
  MutexLock lock(&state_->mutex);
  state_->on_watch = std::move(callback);
}

void FakeServer::PutWorker(const lasp::v1::Worker& worker) {
  MutexLock lock(&state_->mutex);
  state_->workers.push_back(worker);
}

void FakeServer::SetSteps(std::vector<lasp::v1::StepMetrics> steps) {
  MutexLock lock(&state_->mutex);
  state_->steps = std::move(steps);
}

void FakeServer::SetLogLines(std::vector<lasp::v1::LogLine> lines) {
  MutexLock lock(&state_->mutex);
  state_->lines = std::move(lines);
}

void FakeServer::OnListEvents(std::function<void()> callback) {
  MutexLock lock(&state_->mutex);
  state_->on_list_events = std::move(callback);
}

void FakeServer::PutEvent(const lasp::v1::Event& event) {
  MutexLock lock(&state_->mutex);
  state_->told.push_back(event);
  state_->changed.NotifyAll();
}

void FakeServer::ForgetEvents(int64_t sequence) {
  MutexLock lock(&state_->mutex);
  state_->forgotten = sequence;
  state_->changed.NotifyAll();
}

lasp::v1::ListEventsRequest FakeServer::last_events() {
  MutexLock lock(&state_->mutex);
  return state_->list_events;
}

lasp::v1::WatchEventsRequest FakeServer::last_event_watch() {
  MutexLock lock(&state_->mutex);
  return state_->watch_events;
}

void FakeServer::FailWith(const absl::Status& status) {
  MutexLock lock(&state_->mutex);
  state_->failure = status;
}

void FakeServer::BreakWatches() {
  MutexLock lock(&state_->mutex);
  ++state_->breaks;
  state_->changed.NotifyAll();
}

lasp::v1::CreateTrainingJobRequest FakeServer::last_create() {
  MutexLock lock(&state_->mutex);
  return state_->create;
}

std::vector<lasp::v1::UpdateTrainingJobRequest> FakeServer::updates() {
  MutexLock lock(&state_->mutex);
  return state_->updates;
}

lasp::v1::ListTrainingJobsRequest FakeServer::last_list() {
  MutexLock lock(&state_->mutex);
  return state_->list;
}

lasp::v1::WatchTrainingJobsRequest FakeServer::last_watch() {
  MutexLock lock(&state_->mutex);
  return state_->watch;
}

void FakeServer::BreakNextSteps(const absl::Status& status) {
  MutexLock lock(&state_->mutex);
  state_->break_steps = status;
}

lasp::v1::StreamMetricsRequest FakeServer::last_steps() {
  MutexLock lock(&state_->mutex);
  return state_->step_stream;
}

lasp::v1::QueryMetricsRequest FakeServer::last_query() {
  MutexLock lock(&state_->mutex);
  return state_->query;
}

lasp::v1::StreamLogsRequest FakeServer::last_logs() {
  MutexLock lock(&state_->mutex);
  return state_->logs;
}

lasp::v1::DrainWorkerRequest FakeServer::last_drain() {
  MutexLock lock(&state_->mutex);
  return state_->drain;
}

std::string FakeServer::last_request_id() {
  MutexLock lock(&state_->mutex);
  return state_->request_id;
}

int FakeServer::create_count() {
  MutexLock lock(&state_->mutex);
  return state_->create_count;
}

int FakeServer::watch_count() {
  MutexLock lock(&state_->mutex);
  return state_->watch_count;
}

TrainingJob QueuedJob(const std::string& id) {
  TrainingJob job;
  job.set_name(absl::StrCat("projects/default/trainingJobs/", id));
  job.set_uid("uid-" + id);
  job.set_state(TrainingJob::STATE_QUEUED);
  job.set_reason("WAITING_FOR_SLOTS");
  job.set_message("waits for 4 slots; 2 are free");
  job.mutable_spec()->set_max_steps(100);
  job.mutable_create_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) - 1230);
  job.mutable_update_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) - 100);
  return job;
}

TrainingJob RunningJob(const std::string& id, int64_t step) {
  TrainingJob job = QueuedJob(id);
  job.set_state(TrainingJob::STATE_RUNNING);
  job.set_reason("TRAINING");
  job.clear_message();
  job.set_generation(1);
  job.mutable_progress()->set_step(step);
  job.mutable_progress()->set_max_steps(100);
  job.mutable_progress()->set_loss(2.7134);
  job.mutable_progress()->set_first_loss(5.5);
  job.mutable_progress()->set_tokens_per_second(14230);
  job.mutable_progress()->mutable_remaining_duration()->set_seconds(8000);
  return job;
}

TrainingJob SucceededJob(const std::string& id) {
  TrainingJob job = RunningJob(id, 100);
  job.set_state(TrainingJob::STATE_SUCCEEDED);
  job.set_reason("DONE");
  return job;
}

TrainingJob FailedJob(const std::string& id) {
  TrainingJob job = RunningJob(id, 7);
  job.set_state(TrainingJob::STATE_FAILED);
  job.set_reason("LOSS_NOT_FINITE");
  job.mutable_error()->set_code(9);
  job.mutable_error()->set_message("11 steps in a row had a loss that is not finite");
  return job;
}

}  // namespace lasp::client
