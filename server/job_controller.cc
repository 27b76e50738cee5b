#include "server/job_controller.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/core_parts.h"
#include "server/job_engine.h"
#include "server/proto_time.h"

namespace lasp::server {
namespace {

// Inputs handled between two looks at the clock.
constexpr size_t kMaxInputsAtOnce = 512;
constexpr size_t kMaxLogChunkBytes = 1 << 20;

absl::Status TryAgainLater(absl::StatusCode code, absl::string_view message,
                           absl::string_view reason, absl::Duration delay) {
  absl::Status status = ErrorWithReason(code, message, reason);
  google::rpc::RetryInfo info;
  *info.mutable_retry_delay() = ToProtoDuration(delay);
  status.SetPayload("type.googleapis.com/google.rpc.RetryInfo",
                    absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status Overloaded() {
  return TryAgainLater(absl::StatusCode::kResourceExhausted,
                       "too many requests wait for the coordinator; try again in a second",
                       "OVERLOADED", absl::Seconds(1));
}

absl::Status ShuttingDown() {
  return TryAgainLater(absl::StatusCode::kUnavailable, "the coordinator is shutting down",
                       "SHUTTING_DOWN", absl::Seconds(1));
}

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

}  // namespace

struct JobController::Inbox {
  struct Input {
    Kind kind;
    std::function<void(JobEngine&)> work;
  };

  mutable Mutex mutex;
  CondVar wake;
  std::deque<Input> inputs GUARDED_BY(mutex);
  std::deque<CommitUnit> committed GUARDED_BY(mutex);
  size_t queued_commands GUARDED_BY(mutex) = 0;
  size_t queued_agent_messages GUARDED_BY(mutex) = 0;
  bool stopping GUARDED_BY(mutex) = false;
};

JobController::JobController(const CoreOptions& options, const CoreParts& parts)
    : options_(options),
      parts_(std::make_unique<const CoreParts>(parts)),
      engine_(std::make_unique<JobEngine>(options, parts)),
      inbox_(std::make_shared<Inbox>()) {}

absl::StatusOr<std::unique_ptr<JobController>> JobController::Start(const CoreOptions& options,
                                                                    const CoreParts& parts) {
  auto controller = std::unique_ptr<JobController>(new JobController(options, parts));
  LASP_RETURN_IF_ERROR(controller->engine_->Restore());
  controller->thread_ = std::thread([raw = controller.get()] { raw->Run(); });
  return controller;
}

JobController::~JobController() {
  {
    MutexLock lock(&inbox_->mutex);
    inbox_->stopping = true;
  }
  inbox_->wake.NotifyAll();
  if (thread_.joinable()) {
    thread_.join();
  }
}

absl::Status JobController::Enqueue(Kind kind, std::function<void(JobEngine&)> work) {
  if (kind == Kind::kCommand) {
    const absl::Status health = parts_->store->health();
    if (!health.ok()) {
      return TryAgainLater(
          absl::StatusCode::kUnavailable,
          absl::StrCat("the coordinator's store cannot be written: ", health.message()),
          "STORE_UNAVAILABLE", absl::Seconds(5));
    }
  }
  Inbox& inbox = *inbox_;
  bool was_empty = false;
  {
    MutexLock lock(&inbox.mutex);
    if (inbox.stopping) {
      return ShuttingDown();
    }
    if ((kind == Kind::kCommand && inbox.queued_commands >= options_.max_queued_commands) ||
        (kind == Kind::kAgentMessage &&
         inbox.queued_agent_messages >= options_.max_queued_agent_messages)) {
      return Overloaded();
    }
    inbox.queued_commands += kind == Kind::kCommand ? 1 : 0;
    inbox.queued_agent_messages += kind == Kind::kAgentMessage ? 1 : 0;
    was_empty = inbox.inputs.empty();
    inbox.inputs.push_back({kind, std::move(work)});
  }
  if (was_empty) {
    inbox.wake.Notify();
  }
  return absl::OkStatus();
}

template <typename Request, typename Answer, typename Method>
void JobController::Submit(Request request, std::function<void(Answer)> done, Method method) {
  const std::function<void(Answer)> once = AnswerOnce(std::move(done));
  const absl::Status status = Enqueue(
      Kind::kCommand, [request = std::move(request), once, method](JobEngine& engine) mutable {
        (engine.*method)(std::move(request), once);
      });
  if (!status.ok()) {
    once(status);
  }
}

void JobController::Create(lasp::v1::CreateTrainingJobRequest request, JobCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Create);
}

void JobController::Update(lasp::v1::UpdateTrainingJobRequest request, JobCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Update);
}

void JobController::Delete(lasp::v1::DeleteTrainingJobRequest request, DoneCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Delete);
}

void JobController::Cancel(lasp::v1::CancelTrainingJobRequest request, JobCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Cancel);
}

void JobController::Suspend(lasp::v1::SuspendTrainingJobRequest request, JobCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Suspend);
}

void JobController::Resume(lasp::v1::ResumeTrainingJobRequest request, JobCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::Resume);
}

void JobController::DrainWorker(lasp::v1::DrainWorkerRequest request, WorkerCallback done) {
  Submit(std::move(request), std::move(done), &JobEngine::DrainWorker);
}

absl::StatusOr<std::shared_ptr<AgentSession>> JobController::Connect(
    lasp::v1::Hello hello, std::shared_ptr<AgentLink> link) {
  if (!IsValidWorkerId(hello.worker_id())) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_id: '", hello.worker_id(),
                     "' must be letters, digits, '.', '_' and '-', at most 253"));
  }
  auto session = std::make_shared<AgentSession>(
      hello.worker_id(), parts_->leases->Grant(hello.worker_id()), std::move(link));
  LASP_RETURN_IF_ERROR(
      Enqueue(Kind::kAgentMessage, [session, hello = std::move(hello)](JobEngine& engine) {
        engine.Connected(session, hello);
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
    return TakeLogChunk(session, message.log_chunk());
  }
  if (message.has_heartbeat() && message.heartbeat().ranks().empty()) {
    return absl::OkStatus();
  }
  return Enqueue(Kind::kAgentMessage,
                 [session, message = std::move(message)](JobEngine& engine) mutable {
                   engine.Received(session, std::move(message));
                 });
}

absl::Status JobController::TakeLogChunk(const std::shared_ptr<AgentSession>& session,
                                         const lasp::v1::LogChunk& chunk) {
  const lasp::v1::Fence& fence = chunk.fence();
  const JobViewPtr job = parts_->jobs->FindByUid(fence.uid());
  const int ranks = job == nullptr ? 0 : job->job.placements_size();
  if (job == nullptr || fence.generation() < 1 || fence.rank() < 0 ||
      (ranks > 0 && fence.rank() >= ranks) || fence.generation() > job->job.generation()) {
    // A job that has been deleted, most likely: its logs have gone with it.
    return absl::OkStatus();
  }
  if (chunk.data().size() > kMaxLogChunkBytes || chunk.offset() < 0) {
    return absl::InvalidArgumentError("log_chunk: at most 256 KiB, from an offset of at least 0");
  }
  const absl::StatusOr<int64_t> appended = parts_->logs->Append(
      {.uid = fence.uid(), .generation = fence.generation(), .rank = fence.rank()}, chunk.offset(),
      chunk.data());
  if (!appended.ok()) {
    // A full disk must not cost the agent its stream. The next chunk finds the gap, and the agent
    // sends again from there.
    parts_->observer->OnLogChunkDropped();
    LASP_LOG(kWarning, "a piece of a log could not be stored",
             {{"training_job", fence.training_job()},
              {"rank", fence.rank()},
              {"error", appended.status().message()}});
    return absl::OkStatus();
  }
  const int64_t end = *appended;
  parts_->observer->OnLogBytes(chunk.data().size());
  if (end < chunk.offset()) {
    lasp::v1::ConnectResponse response;
    *response.mutable_log_position()->mutable_fence() = fence;
    response.mutable_log_position()->set_offset(end);
    session->Send(std::move(response));
  }
  return absl::OkStatus();
}

void JobController::Disconnect(const std::shared_ptr<AgentSession>& session) {
  session->Drop();
  // Never refused: the controller must learn of it. During a shutdown nobody asks any more.
  const absl::Status ignored =
      Enqueue(Kind::kInternal, [session](JobEngine& engine) { engine.Disconnected(session); });
  static_cast<void>(ignored);
}

size_t JobController::queued_command_count() const {
  MutexLock lock(&inbox_->mutex);
  return inbox_->queued_commands;
}

size_t JobController::queued_agent_message_count() const {
  MutexLock lock(&inbox_->mutex);
  return inbox_->queued_agent_messages;
}

bool JobController::Flush(absl::Duration timeout) {
  struct Reached {
    Mutex mutex;
    CondVar changed;
    bool done GUARDED_BY(mutex) = false;
  };

  const auto reached = std::make_shared<Reached>();
  const absl::Status status = Enqueue(Kind::kInternal, [reached](JobEngine& engine) {
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
  Inbox& inbox = *inbox_;
  absl::Duration next_sweep = SystemClock().Monotonic();
  // Since when inputs have been held back; infinite while they are not.
  absl::Duration held_since = absl::InfiniteDuration();
  while (true) {
    std::deque<Inbox::Input> inputs;
    std::deque<CommitUnit> committed;
    bool stopping = false;
    const bool healthy = parts_->store->health().ok();
    // While the disk fails or lags nothing more is decided: what has come in waits.
    const bool decide = healthy && parts_->store->pending() < options_.max_pending_transactions;
    {
      MutexLock lock(&inbox.mutex);
      const absl::Duration now = SystemClock().Monotonic();
      if ((inbox.inputs.empty() || !decide) && inbox.committed.empty() && !inbox.stopping &&
          now < next_sweep) {
        inbox.wake.WaitWithTimeout(&inbox.mutex, next_sweep - now);
      }
      stopping = inbox.stopping;
      committed.swap(inbox.committed);
      while (decide && !inbox.inputs.empty() && inputs.size() < kMaxInputsAtOnce) {
        const Kind kind = inbox.inputs.front().kind;
        inbox.queued_commands -= kind == Kind::kCommand ? 1 : 0;
        inbox.queued_agent_messages -= kind == Kind::kAgentMessage ? 1 : 0;
        inputs.push_back(std::move(inbox.inputs.front()));
        inbox.inputs.pop_front();
      }
    }
    for (const CommitUnit& unit : committed) {
      engine_->Publish(unit);
    }
    if (stopping) {
      break;
    }
    for (Inbox::Input& input : inputs) {
      input.work(*engine_);
    }
    const absl::Duration clock_now = parts_->clock->Monotonic();
    if (!decide) {
      held_since = std::min(held_since, clock_now);
      next_sweep = SystemClock().Monotonic() + options_.sweep_interval;
      continue;
    }
    if (held_since != absl::InfiniteDuration()) {
      // Nobody's time runs out because the coordinator could not listen.
      parts_->leases->RenewAll();
      engine_->Postpone(clock_now - held_since);
      held_since = absl::InfiniteDuration();
    }
    if (SystemClock().Monotonic() >= next_sweep) {
      engine_->Sweep();
      next_sweep = SystemClock().Monotonic() + options_.sweep_interval;
    }
    engine_->RunScheduler();
    CommitDecisions();
  }
  DrainStore();
}

void JobController::CommitDecisions() {
  auto unit = std::make_shared<CommitUnit>(engine_->TakeUnit());
  if (unit->empty()) {
    return;
  }
  if (unit->mutations.empty() && parts_->store->pending() == 0) {
    // Nothing to wait for, unless something before it has been committed and not yet published.
    MutexLock lock(&inbox_->mutex);
    inbox_->committed.push_back(std::move(*unit));
    return;
  }
  std::vector<Mutation> mutations = std::move(unit->mutations);
  parts_->store->Commit(std::move(mutations), [inbox = inbox_, unit] {
    MutexLock lock(&inbox->mutex);
    inbox->committed.push_back(std::move(*unit));
    inbox->wake.Notify();
  });
}

void JobController::DrainStore() {
  constexpr absl::Duration kPatience = absl::Seconds(10);
  Inbox& inbox = *inbox_;
  const absl::Duration deadline = SystemClock().Monotonic() + kPatience;
  while (parts_->store->health().ok()) {
    const bool nothing_pending = parts_->store->pending() == 0;
    std::deque<CommitUnit> committed;
    {
      MutexLock lock(&inbox.mutex);
      const absl::Duration now = SystemClock().Monotonic();
      if (inbox.committed.empty() && (nothing_pending || now >= deadline)) {
        break;
      }
      if (inbox.committed.empty()) {
        inbox.wake.WaitWithTimeout(&inbox.mutex, std::min(deadline - now, absl::Milliseconds(50)));
      }
      committed.swap(inbox.committed);
    }
    for (const CommitUnit& unit : committed) {
      engine_->Publish(unit);
    }
  }
  // What still waits is dropped, which answers it (AnswerOnce).
  std::deque<Inbox::Input> refused;
  MutexLock lock(&inbox.mutex);
  refused.swap(inbox.inputs);
}

}  // namespace lasp::server
