// The fake coordinator's training jobs.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "tests/client/fake_server_state.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

class Jobs final : public lasp::v1::TrainingJobService::Service {
 public:
  Jobs(FakeServer* server, FakeServerState* state) : server_(server), state_(*state) {}

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

  // As if the job had moved on between the reading and the first writing.
  grpc::Status UpdateTrainingJob(grpc::ServerContext*,
                                 const lasp::v1::UpdateTrainingJobRequest* request,
                                 TrainingJob* response) override {
    return state_.Run([&] {
      state_.AssertHeld();
      state_.updates.push_back(*request);
      const auto job = state_.Find(request->training_job().name());
      if (!job.ok()) {
        return job.status();
      }
      if (state_.updates.size() == 1) {
        return ErrorWithReason(absl::StatusCode::kAborted, "it has changed", "ETAG_MISMATCH");
      }
      *response = **job;
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
  FakeServerState& state_;
};

}  // namespace

std::unique_ptr<grpc::Service> FakeJobs(FakeServer* server, FakeServerState* state) {
  return std::make_unique<Jobs>(server, state);
}

}  // namespace lasp::client
