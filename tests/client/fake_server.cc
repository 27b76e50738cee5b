#include "tests/client/fake_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_conversion.h"

namespace lasp::client {

using lasp::v1::TrainingJob;

struct FakeServer::State {
  Mutex mutex;
  CondVar changed;
  std::map<std::string, TrainingJob> jobs GUARDED_BY(mutex);
  // Every form of every job, in order: what watchers are sent.
  std::vector<TrainingJob> events GUARDED_BY(mutex);
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
  bool stopping GUARDED_BY(mutex) = false;
  int breaks GUARDED_BY(mutex) = 0;
  int create_count GUARDED_BY(mutex) = 0;
  int watch_count GUARDED_BY(mutex) = 0;
  lasp::v1::CreateTrainingJobRequest create GUARDED_BY(mutex);
  lasp::v1::ListTrainingJobsRequest list GUARDED_BY(mutex);
  lasp::v1::WatchTrainingJobsRequest watch GUARDED_BY(mutex);
  lasp::v1::QueryMetricsRequest query GUARDED_BY(mutex);
  lasp::v1::StreamMetricsRequest step_stream GUARDED_BY(mutex);
  bool break_steps GUARDED_BY(mutex) = false;
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

  absl::StatusOr<TrainingJob*> Find(const std::string& name) REQUIRES_LOCK(mutex) {
    const auto found = jobs.find(name);
    if (found == jobs.end()) {
      return ErrorWithReason(absl::StatusCode::kNotFound,
                             absl::StrCat("training job ", name, " does not exist"),
                             "JOB_NOT_FOUND");
    }
    return &found->second;
  }

  void Put(const TrainingJob& job) REQUIRES_LOCK(mutex) {
    jobs[job.name()] = job;
    events.push_back(job);
    changed.NotifyAll();
  }
};

class FakeServer::Jobs final : public lasp::v1::TrainingJobService::Service {
 public:
  Jobs(FakeServer* server, State* state) : server_(server), state_(*state) {}

  grpc::Status CreateTrainingJob(grpc::ServerContext*,
                                 const lasp::v1::CreateTrainingJobRequest* request,
                                 TrainingJob* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.create = *request;
      ++state_.create_count;
      const std::string id =
          request->training_job_id().empty() ? "job-abc123" : request->training_job_id();
      TrainingJob job = QueuedJob(id);
      job.set_display_name(request->training_job().display_name());
      *job.mutable_labels() = request->training_job().labels();
      *job.mutable_spec() = request->training_job().spec();
      if (!request->validate_only()) {
        if (state_.jobs.count(job.name()) > 0) {
          return ErrorWithReason(absl::StatusCode::kAlreadyExists,
                                 absl::StrCat(job.name(), " exists already"), "JOB_EXISTS");
        }
        state_.Put(job);
      }
      *response = job;
      return absl::OkStatus();
    });
  }

  grpc::Status GetTrainingJob(grpc::ServerContext*, const lasp::v1::GetTrainingJobRequest* request,
                              TrainingJob* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      const auto job = state_.Find(request->name());
      if (job.ok()) {
        *response = **job;
      }
      return job.status();
    });
  }

  // Pages of `page_size`; the token is the index of the next job.
  grpc::Status ListTrainingJobs(grpc::ServerContext*,
                                const lasp::v1::ListTrainingJobsRequest* request,
                                lasp::v1::ListTrainingJobsResponse* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.list = *request;
      int index = request->page_token().empty() ? 0 : std::stoi(request->page_token());
      auto job = state_.jobs.begin();
      std::advance(job, index);
      for (; job != state_.jobs.end() && response->training_jobs_size() < request->page_size();
           ++job, ++index) {
        *response->add_training_jobs() = job->second;
      }
      if (job != state_.jobs.end()) {
        response->set_next_page_token(std::to_string(index));
      }
      return absl::OkStatus();
    });
  }

  grpc::Status DeleteTrainingJob(grpc::ServerContext*,
                                 const lasp::v1::DeleteTrainingJobRequest* request,
                                 google::protobuf::Empty*) override {
    return state_.Run([&] {
      state_.AssertHeld();
      return state_.jobs.erase(request->name()) == 1 ? absl::OkStatus()
                                                     : state_.Find(request->name()).status();
    });
  }

  grpc::Status CancelTrainingJob(grpc::ServerContext*,
                                 const lasp::v1::CancelTrainingJobRequest* request,
                                 TrainingJob* response) override {
    return Change(*request, TrainingJob::STATE_CANCELLED, response);
  }

  grpc::Status SuspendTrainingJob(grpc::ServerContext*,
                                  const lasp::v1::SuspendTrainingJobRequest* request,
                                  TrainingJob* response) override {
    return Change(*request, TrainingJob::STATE_SUSPENDED, response);
  }

  grpc::Status ResumeTrainingJob(grpc::ServerContext*,
                                 const lasp::v1::ResumeTrainingJobRequest* request,
                                 TrainingJob* response) override {
    return Change(*request, TrainingJob::STATE_QUEUED, response);
  }

  grpc::Status WatchTrainingJobs(
      grpc::ServerContext* context, const lasp::v1::WatchTrainingJobsRequest* request,
      grpc::ServerWriter<lasp::v1::WatchTrainingJobsResponse>* writer) override {
    std::function<void(FakeServer*)> on_watch;
    int breaks = 0;
    {
      MutexLock lock(&state_.mutex);
      state_.watch = *request;
      ++state_.watch_count;
      on_watch = state_.on_watch;
      breaks = state_.breaks;
    }
    if (on_watch) {
      on_watch(server_);
    }
    MutexLock lock(&state_.mutex);
    size_t next = 0;
    while (!context->IsCancelled() && !state_.stopping && state_.breaks == breaks) {
      if (next == state_.events.size()) {
        state_.changed.WaitWithTimeout(&state_.mutex, absl::Milliseconds(50));
        continue;
      }
      lasp::v1::WatchTrainingJobsResponse response;
      *response.mutable_updated() = state_.events[next++];
      response.set_resume_token(std::to_string(next));
      if (request->filter().empty() ||
          absl::StrContains(request->filter(), response.updated().name())) {
        writer->Write(response);
      }
    }
    return {grpc::StatusCode::UNAVAILABLE, "the watch is broken"};
  }

 private:
  template <typename Request>
  grpc::Status Change(const Request& request, TrainingJob::State state, TrainingJob* response) {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.request_id = request.request_id();
      const auto job = state_.Find(request.name());
      if (job.ok()) {
        TrainingJob changed = **job;
        changed.set_state(state);
        state_.Put(changed);
        *response = changed;
      }
      return job.status();
    });
  }

  FakeServer* const server_;
  State& state_;
};

class FakeServer::MetricsImpl final : public lasp::v1::MetricsService::Service {
 public:
  explicit MetricsImpl(State* state) : state_(*state) {}

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
        if (std::exchange(state_.break_steps, false)) {
          return {grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping"};
        }
      }
    }
    writer->Write(response);
    return grpc::Status::OK;
  }

 private:
  State& state_;
};

class FakeServer::LogsImpl final : public lasp::v1::LogService::Service {
 public:
  explicit LogsImpl(State* state) : state_(*state) {}

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
  State& state_;
};

class FakeServer::Admin final : public lasp::v1::WorkerAdminService::Service {
 public:
  explicit Admin(State* state) : state_(*state) {}

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

  State& state_;
};

class FakeServer::EventsImpl final : public lasp::v1::EventService::Service {
 public:
  EventsImpl(FakeServer* server, State* state) : server_(server), state_(*state) {}

  grpc::Status ListEvents(grpc::ServerContext*, const lasp::v1::ListEventsRequest* request,
                          lasp::v1::ListEventsResponse* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.list_events = *request;
      const int64_t before = request->page_token().empty() ? std::numeric_limits<int64_t>::max()
                                                           : std::stoll(request->page_token());
      for (auto event = state_.told.rbegin(); event != state_.told.rend(); ++event) {
        if (event->sequence() >= before || event->sequence() <= state_.forgotten ||
            (!request->subject().empty() && event->subject() != request->subject())) {
          continue;
        }
        if (response->events_size() == request->page_size()) {
          response->set_next_page_token(
              std::to_string(response->events(response->events_size() - 1).sequence()));
          break;
        }
        *response->add_events() = *event;
      }
      response->set_resume_token(
          std::to_string(state_.told.empty() ? 0 : state_.told.back().sequence()));
      return absl::OkStatus();
    });
  }

  grpc::Status WatchEvents(grpc::ServerContext* context,
                           const lasp::v1::WatchEventsRequest* request,
                           grpc::ServerWriter<lasp::v1::WatchEventsResponse>* writer) override {
    std::function<void(FakeServer*)> on_watch;
    int breaks = 0;
    {
      MutexLock lock(&state_.mutex);
      state_.watch_events = *request;
      on_watch = state_.on_watch;
      breaks = state_.breaks;
    }
    if (on_watch) {
      on_watch(server_);
    }
    MutexLock lock(&state_.mutex);
    int64_t cursor = std::stoll(request->resume_token());
    while (!context->IsCancelled() && !state_.stopping && state_.breaks == breaks) {
      if (cursor < state_.forgotten) {
        return {grpc::StatusCode::OUT_OF_RANGE, "forgotten"};
      }
      const auto next =
          std::find_if(state_.told.begin(), state_.told.end(),
                       [cursor](const auto& event) { return event.sequence() > cursor; });
      if (next == state_.told.end()) {
        state_.changed.WaitWithTimeout(&state_.mutex, absl::Milliseconds(50));
        continue;
      }
      cursor = next->sequence();
      lasp::v1::WatchEventsResponse response;
      *response.add_events() = *next;
      response.set_resume_token(std::to_string(cursor));
      if (request->subject().empty() || request->subject() == next->subject()) {
        writer->Write(response);
      }
    }
    return {grpc::StatusCode::UNAVAILABLE, "the watch is broken"};
  }

 private:
  FakeServer* const server_;
  State& state_;
};

class FakeServer::Info final : public lasp::v1::ServerService::Service {
 public:
  explicit Info(State* state) : state_(*state) {}

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
  State& state_;
};

FakeServer::FakeServer(int port) : state_(std::make_unique<State>()) {
  services_.push_back(std::make_unique<Jobs>(this, state_.get()));
  services_.push_back(std::make_unique<MetricsImpl>(state_.get()));
  services_.push_back(std::make_unique<LogsImpl>(state_.get()));
  services_.push_back(std::make_unique<Admin>(state_.get()));
  services_.push_back(std::make_unique<EventsImpl>(this, state_.get()));
  services_.push_back(std::make_unique<Info>(state_.get()));
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

lasp::v1::ListTrainingJobsRequest FakeServer::last_list() {
  MutexLock lock(&state_->mutex);
  return state_->list;
}

lasp::v1::WatchTrainingJobsRequest FakeServer::last_watch() {
  MutexLock lock(&state_->mutex);
  return state_->watch;
}

void FakeServer::BreakNextSteps() {
  MutexLock lock(&state_->mutex);
  state_->break_steps = true;
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
