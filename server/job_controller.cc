#include "server/job_controller.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"
#include "server/audit_record.h"
#include "server/core_parts.h"
#include "server/hello_check.h"
#include "server/job_engine.h"
#include "server/log_intake.h"
#include "server/try_again.h"

namespace lasp::server {
namespace {

using Kind = ControllerInbox::Kind;

// Inputs handled between two looks at the clock.
constexpr size_t kMaxInputsAtOnce = 512;

// A callback that is called exactly once: with UNAVAILABLE where all copies of it are dropped
// first.
template <typename Answer>
std::function<void(Answer)> AnswerOnce(std::function<void(Answer)> done) {
  struct Guard {
    std::function<void(Answer)> done;

    ~Guard() {
      if (done) {
        done(ShuttingDown());
      }
    }
  };

  auto guard = std::make_shared<Guard>();
  guard->done = std::move(done);
  return [guard](Answer answer) { std::exchange(guard->done, nullptr)(std::move(answer)); };
}

absl::Status StatusOf(const absl::Status& status) { return status; }

template <typename Value>
absl::Status StatusOf(const absl::StatusOr<Value>& answer) {
  return answer.status();
}

// A callback that calls `refused` before it passes a refusal on.
template <typename Answer, typename Refused>
std::function<void(Answer)> Recorded(std::function<void(Answer)> done, Refused refused) {
  return [done = std::move(done), refused = std::move(refused)](Answer answer) {
    // What may be asked again a moment later, for a disk that is full or a stop, tells nothing.
    if (!StatusOf(answer).ok() && !absl::IsUnavailable(StatusOf(answer))) {
      refused(StatusOf(answer));
    }
    done(std::move(answer));
  };
}

}  // namespace

JobController::JobController(const CoreOptions& options, const CoreParts& parts)
    : options_(options),
      parts_(std::make_unique<const CoreParts>(parts)),
      engine_(std::make_unique<JobEngine>(options, parts)),
      inbox_(std::make_shared<ControllerInbox>(
          ControllerInbox::Limits{.max_commands = options.max_queued_commands,
                                  .max_agent_bytes = options.max_queued_agent_bytes})) {
  if (parts.checkpoint_disk != nullptr) {
    parts.checkpoint_disk->SetSink([inbox = inbox_](CheckpointOutcome outcome) {
      // Refused at the end only, and then the next start asks again.
      static_cast<void>(inbox->Add(
          Kind::kInternal, 0,
          [outcome = std::move(outcome)](JobEngine& engine) { engine.CheckpointDone(outcome); }));
    });
  }
}

absl::StatusOr<std::unique_ptr<JobController>> JobController::Start(const CoreOptions& options,
                                                                    const CoreParts& parts) {
  auto controller = std::unique_ptr<JobController>(new JobController(options, parts));
  LASP_RETURN_IF_ERROR(controller->engine_->Restore());
  controller->thread_ = std::thread([raw = controller.get()] { raw->Run(); });
  return controller;
}

absl::StatusOr<std::unique_ptr<JobController>> JobController::StartStepped(
    const CoreOptions& options, const CoreParts& parts) {
  auto controller = std::unique_ptr<JobController>(new JobController(options, parts));
  LASP_RETURN_IF_ERROR(controller->engine_->Restore());
  return controller;
}

JobController::~JobController() { Stop(); }

void JobController::Stop() {
  inbox_->Stop();
  if (thread_.joinable()) {
    thread_.join();
  }
}

template <typename Request, typename Answer, typename Method>
void JobController::Submit(absl::string_view name, const std::string& resource, Request request,
                           Caller caller, std::function<void(Answer)> done, Method method) {
  const std::function<void(Answer)> once =
      AnswerOnce(Recorded(std::move(done), [refusals = parts_->refusals, caller, name,
                                            resource](const absl::Status& status) {
        refusals->Add(caller, name, resource, status);
      }));
  const absl::Status health = parts_->store->health();
  if (!health.ok()) {
    once(
        TryAgainLater(absl::StatusCode::kUnavailable,
                      absl::StrCat("the coordinator's store cannot be written: ", health.message()),
                      "STORE_UNAVAILABLE", absl::Seconds(5)));
    return;
  }
  const absl::Status status =
      inbox_->Add(Kind::kCommand, 0,
                  [request = std::move(request), caller = std::move(caller), once,
                   method = std::move(method)](JobEngine& engine) mutable {
                    std::invoke(method, engine, std::move(request), caller, once);
                  });
  if (!status.ok()) {
    once(status);
  }
}

void JobController::Create(lasp::v1::CreateTrainingJobRequest request, Caller caller,
                           JobCallback done, absl::Status verdict) {
  const std::string resource =
      request.training_job_id().empty()
          ? request.parent()
          : absl::StrCat(request.parent(), "/trainingJobs/", request.training_job_id());
  Submit(audit::kCreate, resource, std::move(request), std::move(caller), std::move(done),
         [verdict = std::move(verdict)](
             JobEngine& engine, lasp::v1::CreateTrainingJobRequest checked, const Caller& by,
             const JobCallback& once) { engine.Create(std::move(checked), by, once, verdict); });
}

void JobController::Update(lasp::v1::UpdateTrainingJobRequest request, Caller caller,
                           JobCallback done) {
  const std::string name = request.training_job().name();
  Submit(audit::kUpdate, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::Update);
}

void JobController::Delete(lasp::v1::DeleteTrainingJobRequest request, Caller caller,
                           DoneCallback done) {
  const std::string name = request.name();
  Submit(audit::kDelete, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::Delete);
}

void JobController::Cancel(lasp::v1::CancelTrainingJobRequest request, Caller caller,
                           JobCallback done) {
  const std::string name = request.name();
  Submit(audit::kCancel, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::Cancel);
}

void JobController::Suspend(lasp::v1::SuspendTrainingJobRequest request, Caller caller,
                            JobCallback done) {
  const std::string name = request.name();
  Submit(audit::kSuspend, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::Suspend);
}

void JobController::Resume(lasp::v1::ResumeTrainingJobRequest request, Caller caller,
                           JobCallback done) {
  const std::string name = request.name();
  Submit(audit::kResume, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::Resume);
}

void JobController::DrainWorker(lasp::v1::DrainWorkerRequest request, Caller caller,
                                WorkerCallback done) {
  const std::string name = request.name();
  Submit(audit::kDrainWorker, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::DrainWorker);
}

void JobController::VerifyCheckpoint(lasp::v1::VerifyCheckpointRequest request, Caller caller,
                                     CheckpointCallback done) {
  const std::string name = request.name();
  Submit(audit::kVerifyCheckpoint, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::VerifyCheckpoint);
}

void JobController::DeleteCheckpoint(lasp::v1::DeleteCheckpointRequest request, Caller caller,
                                     CheckpointCallback done) {
  const std::string name = request.name();
  Submit(audit::kDeleteCheckpoint, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::RemoveCheckpoint);
}

void JobController::ExportCheckpoint(lasp::v1::ExportCheckpointRequest request, Caller caller,
                                     CheckpointCallback done) {
  const std::string name = request.name();
  Submit(audit::kExportCheckpoint, name, std::move(request), std::move(caller), std::move(done),
         &JobEngine::ExportCheckpoint);
}

void JobController::Record(lasp::v1::AuditRecord record, DoneCallback done) {
  const DoneCallback once = AnswerOnce(std::move(done));
  const absl::Status status =
      inbox_->Add(Kind::kCommand, 0, [record = std::move(record), once](JobEngine& engine) mutable {
        engine.Record(std::move(record));
        engine.AfterCommit([once] { once(absl::OkStatus()); });
      });
  if (!status.ok()) {
    once(status);
  }
}

absl::StatusOr<std::shared_ptr<AgentSession>> JobController::Connect(
    lasp::v1::Hello hello, std::shared_ptr<AgentLink> link) {
  LASP_RETURN_IF_ERROR(CheckHello(hello));
  auto session = std::make_shared<AgentSession>(
      hello.worker_id(), parts_->leases->Grant(hello.worker_id()), std::move(link));
  const size_t bytes = hello.ByteSizeLong();
  // On this thread, for the controller must not wait for the disk.
  std::vector<int64_t> log_ends = LogEnds(*parts_, hello);
  LASP_RETURN_IF_ERROR(inbox_->Add(
      Kind::kAgentMessage, bytes,
      [session, hello = std::move(hello), log_ends = std::move(log_ends)](JobEngine& engine) {
        engine.Connected(session, hello, log_ends);
      }));
  return session;
}

absl::Status JobController::Deliver(const std::shared_ptr<AgentSession>& session,
                                    lasp::v1::ConnectRequest message) {
  if (!session->connected()) {
    return absl::AbortedError("this stream has been replaced or given up; connect again");
  }
  session->lease().Renew(*parts_->clock);
  if (message.has_log_chunk()) {
    return TakeLogChunk(*parts_, session.get(), message.log_chunk());
  }
  if (message.has_heartbeat()) {
    session->lease().TakeReport(message.heartbeat(), parts_->clock->Now());
    if (message.heartbeat().ranks().empty()) {
      return absl::OkStatus();
    }
  }
  const size_t bytes = message.ByteSizeLong();
  return inbox_->Add(Kind::kAgentMessage, bytes,
                     [session, message = std::move(message)](JobEngine& engine) mutable {
                       engine.Received(session, std::move(message));
                     });
}

bool JobController::AwaitRoom(std::function<void()> resume) {
  return inbox_->AwaitRoom(std::move(resume));
}

void JobController::Disconnect(const std::shared_ptr<AgentSession>& session) {
  session->Drop();
  // Never refused: the controller must learn of it. During a shutdown nobody asks any more.
  const absl::Status ignored = inbox_->Add(
      Kind::kInternal, 0, [session](JobEngine& engine) { engine.Disconnected(session); });
  static_cast<void>(ignored);
}

bool JobController::Flush(absl::Duration timeout) {
  struct Reached {
    Mutex mutex;
    CondVar changed;
    bool done GUARDED_BY(mutex) = false;
  };

  const auto reached = std::make_shared<Reached>();
  const absl::Status status = inbox_->Add(Kind::kInternal, 0, [reached](JobEngine& engine) {
    engine.AfterCommit([reached] {
      MutexLock lock(&reached->mutex);
      reached->done = true;
      reached->changed.NotifyAll();
    });
  });
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&reached->mutex);
  while (status.ok() && !reached->done) {
    if (reached->changed.WaitWithTimeout(&reached->mutex, deadline - SystemClock().Monotonic())) {
      break;
    }
  }
  return reached->done;
}

void JobController::Run() {
  absl::Duration next_sweep = SystemClock().Monotonic();
  while (true) {
    const bool decide = MayDecide();
    const ControllerInbox::Batch batch = inbox_->Take(decide, kMaxInputsAtOnce, next_sweep);
    const bool sweep = SystemClock().Monotonic() >= next_sweep;
    if (!HandleBatch(batch, decide, sweep)) {
      break;
    }
    if (sweep || !decide) {
      next_sweep = SystemClock().Monotonic() + options_.sweep_interval;
    }
  }
  engine_->RecordRefusals(/*all=*/true);
  CommitDecisions();
  DrainStore();
}

void JobController::Step(bool sweep) {
  const bool decide = MayDecide();
  HandleBatch(inbox_->Take(decide, kMaxInputsAtOnce, -absl::InfiniteDuration()), decide, sweep);
}

bool JobController::MayDecide() const {
  // While the disk fails or lags nothing more is decided: what has come in waits.
  return parts_->store->health().ok() &&
         parts_->store->pending() < options_.max_pending_transactions;
}

bool JobController::HandleBatch(const ControllerInbox::Batch& batch, bool decide, bool sweep) {
  for (const CommitUnit& unit : batch.committed) {
    engine_->Publish(unit);
  }
  if (batch.stopping) {
    return false;
  }
  for (const auto& input : batch.inputs) {
    input(*engine_);
  }
  const absl::Duration now = parts_->clock->Monotonic();
  if (!decide) {
    held_since_ = std::min(held_since_, now);
    return true;
  }
  if (held_since_ != absl::InfiniteDuration()) {
    // Nobody's time runs out because the coordinator could not listen.
    parts_->leases->RenewAll();
    engine_->Postpone(now - held_since_);
    held_since_ = absl::InfiniteDuration();
  }
  if (sweep) {
    engine_->Sweep();
  }
  engine_->RunScheduler();
  CommitDecisions();
  return true;
}

void JobController::CommitDecisions() {
  CommitUnit unit = engine_->TakeUnit();
  if (unit.empty()) {
    return;
  }
  if (unit.mutations.empty() && parts_->store->pending() == 0) {
    // Nothing to wait for, unless something before it has been committed and not yet published.
    inbox_->AddCommitted(std::move(unit));
    return;
  }
  std::vector<Mutation> mutations = std::move(unit.mutations);
  inbox_->AddPending(std::move(unit));
  parts_->store->Commit(std::move(mutations), [inbox = inbox_] { inbox->PendingCommitted(); });
}

void JobController::DrainStore() {
  constexpr absl::Duration kPatience = absl::Seconds(10);
  const absl::Duration deadline = SystemClock().Monotonic() + kPatience;
  while (parts_->store->health().ok()) {
    const bool last = parts_->store->pending() == 0 || SystemClock().Monotonic() >= deadline;
    const std::deque<CommitUnit> committed =
        inbox_->TakeCommitted(last ? absl::ZeroDuration() : absl::Milliseconds(50));
    if (last && committed.empty()) {
      break;
    }
    for (const CommitUnit& unit : committed) {
      engine_->Publish(unit);
    }
  }
  // What still waits is dropped, which answers it (AnswerOnce).
  inbox_->Clear();
}

}  // namespace lasp::server
