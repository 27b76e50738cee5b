#include "tests/simulation/users.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::simulation {
namespace {

using lasp::v1::CreateTrainingJobRequest;

constexpr int kMaxJobs = 7;

}  // namespace

Users::Users(Context* context, Checker* checker, Coordinator* coordinator,
             std::vector<std::string> worker_ids, bool gpus)
    : context_(context),
      checker_(checker),
      coordinator_(coordinator),
      worker_ids_(std::move(worker_ids)),
      gpus_(gpus),
      random_(context->MakeRandom()),
      mean_pause_(random_.Between(absl::Seconds(2), absl::Seconds(12))) {}

void Users::Begin() {
  const int jobs = random_.Between(1, 4);
  for (int i = 0; i < jobs; ++i) {
    context_->timeline().After(random_.Between(absl::ZeroDuration(), absl::Seconds(5)),
                               [this] { Submit(); });
  }
  PlanWish();
}

void Users::PlanWish() {
  context_->timeline().After(random_.Between(absl::ZeroDuration(), 2 * mean_pause_), [this] {
    if (!resting_) {
      Wish();
      PlanWish();
    }
  });
}

void Users::Wish() {
  const int wish = random_.Below(100);
  if (known_.empty() || wish < 20) {
    Submit();
    return;
  }
  const Known job = known_[static_cast<size_t>(random_.Below(static_cast<int>(known_.size())))];
  if (wish < 30) {
    Ask<lasp::v1::CancelTrainingJobRequest>("cancel", job, &server::JobController::Cancel);
  } else if (wish < 50) {
    Ask<lasp::v1::SuspendTrainingJobRequest>("suspend", job, &server::JobController::Suspend);
  } else if (wish < 72) {
    Ask<lasp::v1::ResumeTrainingJobRequest>("resume", job, &server::JobController::Resume);
  } else if (wish < 80) {
    Delete(job);
  } else {
    const std::string& worker =
        worker_ids_[static_cast<size_t>(random_.Below(static_cast<int>(worker_ids_.size())))];
    Drain(worker, /*undo=*/drains_[worker], /*attempts=*/1);
  }
}

void Users::Submit() {
  if (submitted_ >= kMaxJobs) {
    return;
  }
  CreateTrainingJobRequest request;
  request.set_parent("projects/default");
  request.set_training_job_id(absl::StrCat("job-", ++submitted_));
  if (random_.Chance(0.8)) {
    request.set_request_id(absl::StrCat("request-", submitted_));
  }
  auto* const spec = request.mutable_training_job()->mutable_spec();
  spec->mutable_parallelism()->mutable_sequence_parallel()->set_size(random_.Between(1, 3));
  spec->mutable_parallelism()->mutable_data_parallel()->set_size(random_.Between(1, 2));
  spec->mutable_recovery()->set_max_restarts(random_.Chance(0.15) ? 0 : random_.Between(2, 12));
  spec->set_max_steps(random_.Between(2, 14));
  spec->mutable_checkpoint()->set_interval_steps(random_.Chance(0.6) ? random_.Between(1, 5) : 0);
  if (gpus_ && random_.Chance(0.5)) {
    spec->set_device(random_.Chance(0.5) ? lasp::v1::TrainingSpec::DEVICE_GPU
                                         : lasp::v1::TrainingSpec::DEVICE_CPU);
  }
  if (random_.Chance(0.1)) {
    spec->mutable_max_queue_duration()->set_seconds(random_.Between(5, 60));
  }
  if (random_.Chance(0.1)) {
    spec->mutable_max_run_duration()->set_seconds(random_.Between(10, 60));
  }
  Send(request);
}

void Users::Send(const CreateTrainingJobRequest& request) {
  const auto again = [this, request] {
    // Without an id a second request might be a second job.
    if (!request.request_id().empty()) {
      context_->timeline().After(random_.Between(absl::Milliseconds(200), absl::Seconds(3)),
                                 [this, request] { Send(request); });
    }
  };
  if (!coordinator_->up()) {
    again();
    return;
  }
  context_->Say("user: submits ", request.training_job_id());
  ++unanswered_;
  coordinator_->controller()->Create(
      request, {}, [this, again, request](const absl::StatusOr<server::JobViewPtr>& answer) {
        --unanswered_;
        context_->Say("user: submit of ", request.training_job_id(), ": ",
                      absl::StatusCodeToString(answer.status().code()));
        if (answer.ok()) {
          checker_->OnCreated((*answer)->job.uid());
          known_.push_back({(*answer)->job.name(), (*answer)->job.uid()});
        } else if (absl::IsUnavailable(answer.status())) {
          again();
        }
      });
  coordinator_->Wake();
}

template <typename Request, typename Method>
void Users::Ask(const char* what, const Known& job, Method method) {
  if (!coordinator_->up()) {
    return;
  }
  Request request;
  request.set_name(job.name);
  if (random_.Chance(0.5)) {
    request.set_request_id(absl::StrCat(what, "-", random_.Next()));
  }
  context_->Say("user: asks to ", what, " ", job.name);
  ++unanswered_;
  (coordinator_->controller()->*method)(
      request, {}, [this](const absl::StatusOr<server::JobViewPtr>& answer) {
        --unanswered_;
        context_->Say("user: ", absl::StatusCodeToString(answer.status().code()));
      });
  coordinator_->Wake();
}

void Users::Delete(const Known& job) {
  if (!coordinator_->up()) {
    return;
  }
  context_->Say("user: asks to delete ", job.name);
  // From here on it may be gone, whether its end is told or not.
  checker_->OnDeletionAsked(job.uid);
  lasp::v1::DeleteTrainingJobRequest request;
  request.set_name(job.name);
  ++unanswered_;
  coordinator_->controller()->Delete(request, {}, [this, job](const absl::Status& answer) {
    --unanswered_;
    context_->Say("user: ", absl::StatusCodeToString(answer.code()));
    if (absl::IsFailedPrecondition(answer)) {
      checker_->OnCreated(job.uid);
    }
  });
  coordinator_->Wake();
}

void Users::Drain(const std::string& worker_id, bool undo, int attempts) {
  const auto again = [this, worker_id, undo, attempts] {
    if (attempts > 1) {
      context_->timeline().After(absl::Seconds(2), [this, worker_id, undo, attempts] {
        Drain(worker_id, undo, attempts - 1);
      });
    }
  };
  drains_[worker_id] = !undo;
  if (!coordinator_->up()) {
    again();
    return;
  }
  context_->Say("user: ", undo ? "undoes the drain of " : "drains ", worker_id);
  lasp::v1::DrainWorkerRequest request;
  request.set_name(absl::StrCat("workers/", worker_id));
  request.set_undo(undo);
  ++unanswered_;
  coordinator_->controller()->DrainWorker(
      request, {}, [this, again](const absl::StatusOr<server::WorkerViewPtr>& answer) {
        --unanswered_;
        if (!answer.ok()) {
          again();
        }
      });
  coordinator_->Wake();
}

void Users::Rest() {
  resting_ = true;
  for (const std::string& worker : worker_ids_) {
    if (drains_[worker] && random_.Chance(0.8)) {
      Drain(worker, /*undo=*/true, /*attempts=*/20);
    }
  }
}

}  // namespace lasp::simulation
