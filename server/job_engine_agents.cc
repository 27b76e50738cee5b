// What agents report, fenced: a rank counts only if job, generation, rank and worker are the
// present ones.
#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/version.h"
#include "server/job_engine.h"
#include "server/proto_time.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

constexpr int kMaxSlots = 1'024;

absl::Status CheckHello(const lasp::v1::Hello& hello) {
  if (hello.protocol_version() != kWorkerProtocolVersion) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("worker protocol version ", hello.protocol_version(),
                     " is not spoken here, only version ", kWorkerProtocolVersion,
                     "; install lasp-worker and lasp-server of one release"),
        "PROTOCOL_VERSION_MISMATCH");
  }
  if (hello.incarnation().empty()) {
    return absl::InvalidArgumentError("hello.incarnation: must not be empty");
  }
  std::set<int> indices;
  for (const auto& slot : hello.slots()) {
    indices.insert(slot.index());
  }
  if (hello.slots_size() > kMaxSlots || static_cast<int>(indices.size()) != hello.slots_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("hello.slots: at most ", kMaxSlots, ", each index once"));
  }
  return absl::OkStatus();
}

SlotHolder HolderOf(const lasp::v1::Fence& fence) {
  return {.job_name = fence.training_job(),
          .uid = fence.uid(),
          .generation = fence.generation(),
          .rank = fence.rank()};
}

// How a rank's exit reads, and as what it counts.
GenerationFailure DescribeExit(const lasp::v1::RankExited& message, const std::string& worker_id) {
  constexpr int kSignalBase = 128;
  GenerationFailure failure;
  failure.status = message.status();
  failure.actor = absl::StrCat("agent/", worker_id);
  const int code = message.exit_code();
  std::string how = absl::StrCat("exited with ", code);
  if (code == kRankWrongConfiguration) {
    failure.reason = reason::kWrongConfiguration;
  } else if (code == kRankDoNotRequeue) {
    failure.reason = reason::kDoNotRequeue;
  } else if (code == kRankSuspectHost) {
    failure.reason = reason::kHostSuspect;
  } else if (code > kSignalBase) {
    failure.reason = reason::kRankKilled;
    how = absl::StrCat("was ended by signal ", code - kSignalBase);
  } else {
    failure.reason = reason::kRankFailed;
  }
  failure.message = absl::StrCat("rank ", message.fence().rank(), " on workers/", worker_id, " ",
                                 how, " after step ", message.step());
  if (!message.status().message().empty()) {
    absl::StrAppend(&failure.message, ": ", message.status().message());
  }
  return failure;
}

}  // namespace

JobRecord* JobEngine::FencedJob(const AgentSession& session, const lasp::v1::Fence& fence) {
  const auto found = jobs_by_uid_.find(fence.uid());
  if (found == jobs_by_uid_.end()) {
    return nullptr;
  }
  JobRecord* job = found->second.get();
  if (job->run == nullptr || job->run->generation != fence.generation() || fence.rank() < 0 ||
      fence.rank() >= static_cast<int>(job->run->ranks.size())) {
    return nullptr;
  }
  const RankRecord& rank = job->run->ranks[static_cast<size_t>(fence.rank())];
  return rank.worker_id == session.worker_id() && rank.phase != Phase::kExited ? job : nullptr;
}

void JobEngine::StopStale(const AgentSessionPtr& session, const lasp::v1::Fence& fence) {
  const absl::Duration now = parts_.clock->Monotonic();
  WorkerRecord* worker = workers_.Find(session->worker_id());
  WorkerSlot* slot = worker == nullptr ? nullptr : worker->FindHolder(fence);
  if (slot != nullptr) {
    if (now - slot->holder->last_stop < options_.stop_repeat_interval) {
      return;
    }
    slot->holder->last_stop = now;
  }
  parts_.observer->OnStaleMessage();
  lasp::v1::ConnectResponse response;
  auto* stop = response.mutable_stop();
  *stop->mutable_fence() = fence;
  stop->set_mode(lasp::v1::Stop::MODE_KILL);
  stop->set_reason(reason::kStaleGeneration);
  Send(session, std::move(response));
}

void JobEngine::Connected(const AgentSessionPtr& session, const lasp::v1::Hello& hello) {
  if (const absl::Status status = CheckHello(hello); !status.ok()) {
    session->Close(status);
    return;
  }
  WorkerRecord* worker = workers_.FindOrAdd(hello.worker_id());
  if (worker->session != nullptr) {
    worker->session->registered = false;
    worker->session->Close(
        absl::AbortedError(absl::StrCat("workers/", worker->id(),
                                        " has connected again; each agent needs a "
                                        "--worker_id of its own")));
  }
  const bool same_incarnation = worker->incarnation == hello.incarnation();
  session->registered = true;
  worker->Register(hello, session, parts_.leases->Grant(worker->id()), parts_.clock->Now());
  StoreWorker(*worker);

  lasp::v1::ConnectResponse response;
  response.set_acked_sequence(session->acked_sequence);
  auto* welcome = response.mutable_welcome();
  welcome->set_session_id(absl::StrCat(hello.incarnation(), "/", NextRevision()));
  *welcome->mutable_heartbeat_interval() = ToProtoDuration(options_.heartbeat_interval);
  *welcome->mutable_lease_duration() = ToProtoDuration(options_.lease_duration);
  Send(session, std::move(response));

  AdoptRanks(session, hello, worker, same_incarnation);
  if (worker->draining()) {
    StopForDrain(worker);
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

void JobEngine::AdoptRanks(const AgentSessionPtr& session, const lasp::v1::Hello& hello,
                           WorkerRecord* worker, bool same_incarnation) {
  std::set<std::tuple<std::string, int64_t, int>> listed;
  for (const lasp::v1::RankStatus& status : hello.ranks()) {
    const lasp::v1::Fence& fence = status.fence();
    listed.emplace(fence.uid(), fence.generation(), fence.rank());
    worker->Occupy(status.slot(), HolderOf(fence));
    if (JobRecord* job = FencedJob(*session, fence); job != nullptr) {
      RefreshRank(session, job, &job->run->ranks[static_cast<size_t>(fence.rank())], status);
    } else {
      StopStale(session, fence);
    }
  }
  // Ranks that should be there. With a new process of the agent they are gone for certain;
  // otherwise their exits may be among the reports that it sends again now.
  const absl::Duration missing = parts_.clock->Monotonic() + options_.missing_rank_grace;
  std::vector<std::pair<JobRecord*, int>> gone;
  std::set<std::tuple<std::string, int64_t, int>> awaited;
  for (const auto& [id, job] : running_) {
    for (size_t rank = 0; rank < job->run->ranks.size(); ++rank) {
      RankRecord& record = job->run->ranks[rank];
      const auto key = std::make_tuple(job->uid(), job->run->generation, static_cast<int>(rank));
      if (record.worker_id != worker->id() || record.phase == Phase::kExited ||
          listed.contains(key)) {
        continue;
      }
      if (same_incarnation && job->state() == Job::STATE_STARTING && !job->run->stopping()) {
        // It may never have heard of the rank. One that it has is not started twice, and the end of
        // one that it had is told again; the deadlines of the start cover the rest.
        record.attached = true;
        record.missing_deadline = absl::InfiniteDuration();
        worker->Occupy(record.slot, HolderOf(FenceOf(*job, static_cast<int>(rank))));
        SendAssignment(job, static_cast<int>(rank));
        awaited.insert(key);
      } else if (same_incarnation) {
        record.missing_deadline = std::min(record.missing_deadline, missing);
        awaited.insert(key);
      } else {
        gone.emplace_back(job, static_cast<int>(rank));
      }
    }
  }
  for (const WorkerSlot& slot : std::vector<WorkerSlot>(worker->slots())) {
    if (slot.holder.has_value()) {
      const auto key =
          std::make_tuple(slot.holder->uid, slot.holder->generation, slot.holder->rank);
      if (!listed.contains(key) && !awaited.contains(key)) {
        lasp::v1::Fence fence;
        fence.set_uid(slot.holder->uid);
        fence.set_generation(slot.holder->generation);
        fence.set_rank(slot.holder->rank);
        worker->Release(fence);
      }
    }
  }
  for (const auto& [job, rank] : gone) {
    if (job->run != nullptr) {
      RankGone(job, rank, /*exit_code=*/-1,
               {.reason = reason::kAgentRestarted,
                .message = absl::StrCat("the agent of workers/", worker->id(),
                                        " was started anew, and rank ", rank, " with it is gone"),
                .status = {},
                .actor = absl::StrCat("agent/", worker->id())});
    }
  }
}

void JobEngine::RefreshRank(const AgentSessionPtr& session, JobRecord* job, RankRecord* rank,
                            const lasp::v1::RankStatus& status) {
  rank->attached = true;
  rank->missing_deadline = absl::InfiniteDuration();
  rank->slot = status.slot();
  lasp::v1::ConnectResponse position;
  *position.mutable_log_position()->mutable_fence() = status.fence();
  const auto end = parts_.logs->End(
      {.uid = job->uid(), .generation = job->run->generation, .rank = status.fence().rank()});
  position.mutable_log_position()->set_offset(end.value_or(0));
  Send(session, std::move(position));
  // What was sent over the last stream may be lost: say it again.
  if (job->run->stopping()) {
    SendStop(job, status.fence().rank());
    return;
  }
  if (status.phase() == lasp::v1::RankStatus::PHASE_STARTING) {
    if (job->run->peers_sent) {
      SendPeerAddresses(job, status.fence().rank());
    }
    return;
  }
  rank->phase = Phase::kReady;
  if (job->state() == Job::STATE_RUNNING && status.phase() == lasp::v1::RankStatus::PHASE_READY) {
    SendStart(job, status.fence().rank());
  }
  AdvanceStart(job);
}

void JobEngine::Received(const AgentSessionPtr& session, lasp::v1::ConnectRequest message) {
  // A message of a stream that a newer one has replaced comes again over that one.
  if (!session->registered) {
    return;
  }
  switch (message.body_case()) {
    case lasp::v1::ConnectRequest::kHeartbeat:
      OnHeartbeat(session, message.heartbeat());
      return;
    case lasp::v1::ConnectRequest::kRankAddress:
      OnRankAddress(session, message.rank_address());
      return;
    case lasp::v1::ConnectRequest::kRankReady:
      OnRankReady(session, message.rank_ready());
      return;
    case lasp::v1::ConnectRequest::kStepReports:
      OnStepReports(session, message.mutable_step_reports());
      break;
    case lasp::v1::ConnectRequest::kRankExited:
      OnRankExited(session, message.rank_exited());
      break;
    case lasp::v1::ConnectRequest::kDraining:
      if (WorkerRecord* worker = workers_.Find(session->worker_id()); worker != nullptr) {
        worker->agent_draining = true;
        StopForDrain(worker);
      }
      return;
    default:
      session->Close(absl::InvalidArgumentError("a message that is none of the worker protocol's"));
      return;
  }
  // Reports alone: what else is said on a stream may overtake those that go again on it. Also one
  // that comes again: the agent has not heard of the first acknowledgement.
  session->acked_sequence = std::max(session->acked_sequence, message.sequence());
  unit_.acknowledged[session] = session->acked_sequence;
}

void JobEngine::Disconnected(const AgentSessionPtr& session) {
  session->Drop();
  WorkerRecord* worker = workers_.Find(session->worker_id());
  if (worker != nullptr && worker->session == session) {
    worker->session = nullptr;
    PublishWorker(worker);
  }
}

RankRecord& JobEngine::NoteAlive(JobRecord* job, const lasp::v1::Fence& fence) {
  RankRecord& rank = job->run->ranks[static_cast<size_t>(fence.rank())];
  rank.attached = true;
  rank.missing_deadline = absl::InfiniteDuration();
  return rank;
}

void JobEngine::OnHeartbeat(const AgentSessionPtr& session, const lasp::v1::Heartbeat& heartbeat) {
  const absl::Duration now = parts_.clock->Monotonic();
  for (const lasp::v1::RankStatus& status : heartbeat.ranks()) {
    JobRecord* job = FencedJob(*session, status.fence());
    if (job == nullptr) {
      StopStale(session, status.fence());
      continue;
    }
    NoteAlive(job, status.fence());
    if (job->run->stopping() && !job->run->stop_gently &&
        now - job->run->last_stop >= options_.stop_repeat_interval) {
      StopRanks(job, /*gently=*/false, job->run->stop_reason);
    }
  }
}

void JobEngine::OnRankAddress(const AgentSessionPtr& session,
                              const lasp::v1::RankAddress& message) {
  JobRecord* job = FencedJob(*session, message.fence());
  if (job == nullptr) {
    StopStale(session, message.fence());
    return;
  }
  RankRecord& rank = NoteAlive(job, message.fence());
  rank.address = message.address();
  rank.phase = std::max(rank.phase, Phase::kAddressed);
  if (job->run->peers_sent && !job->run->stopping()) {
    SendPeerAddresses(job, message.fence().rank());
  }
  AdvanceStart(job);
}

void JobEngine::OnRankReady(const AgentSessionPtr& session, const lasp::v1::RankReady& message) {
  JobRecord* job = FencedJob(*session, message.fence());
  if (job == nullptr) {
    StopStale(session, message.fence());
    return;
  }
  RankRecord& rank = NoteAlive(job, message.fence());
  rank.phase = std::max(rank.phase, Phase::kReady);
  if (job->state() == Job::STATE_RUNNING && !job->run->stopping()) {
    SendStart(job, message.fence().rank());
  }
  AdvanceStart(job);
}

void JobEngine::TakeStep(JobRecord* job, const lasp::v1::StepMetrics& step) {
  if (job->progress == nullptr) {
    job->progress = std::make_unique<lasp::v1::TrainingProgress>(job->view->job.progress());
  }
  lasp::v1::TrainingProgress& progress = *job->progress;
  if (step.step() == 1) {
    progress.set_first_loss(step.loss());
  }
  if (step.has_eval_loss()) {
    progress.set_eval_loss(step.eval_loss());
  }
  if (step.step() <= progress.step()) {
    return;
  }
  progress.set_step(step.step());
  progress.set_token_count(step.token_count());
  progress.set_loss(step.loss());
  progress.set_tokens_per_second(step.tokens_per_second());
  progress.set_skipped_step_count(progress.skipped_step_count() + (step.skipped() ? 1 : 0));
  *progress.mutable_remaining_duration() = ToProtoDuration(
      absl::Seconds(step.step_seconds() * static_cast<double>(progress.max_steps() - step.step())));
  *progress.mutable_report_time() = step.time();
}

JobRecord* JobEngine::FailedJob(const AgentSession& session, const lasp::v1::Fence& fence) {
  const auto found = jobs_by_uid_.find(fence.uid());
  if (found == jobs_by_uid_.end() || found->second->run != nullptr ||
      found->second->state() != Job::STATE_FAILED ||
      found->second->generation() != fence.generation()) {
    return nullptr;
  }
  const auto& placements = found->second->view->job.placements();
  const std::string worker = absl::StrCat("workers/", session.worker_id());
  const bool ran_here =
      std::any_of(placements.begin(), placements.end(), [&](const lasp::v1::RankPlacement& place) {
        return place.rank() == fence.rank() && place.worker() == worker;
      });
  return ran_here ? found->second.get() : nullptr;
}

void JobEngine::OnStepReports(const AgentSessionPtr& session, lasp::v1::StepReports* message) {
  JobRecord* job = FencedJob(*session, message->fence());
  // The last steps before a failure for good may come after it, and are the ones to look at.
  const bool late = job == nullptr;
  if (late) {
    job = FailedJob(*session, message->fence());
  }
  if (job == nullptr) {
    StopStale(session, message->fence());
    return;
  }
  PutSteps rows{.job_id = job->id(), .steps = {}};
  for (lasp::v1::StepMetrics& step : *message->mutable_steps()) {
    if (step.step() < 1 || step.step() > job->view->job.progress().max_steps()) {
      LASP_LOG(kWarning, "a step that the job does not have was reported",
               {{"training_job", job->name()}, {"step", step.step()}});
      continue;
    }
    step.set_generation(message->fence().generation());
    TakeStep(job, step);
    rows.steps.push_back(std::move(step));
  }
  if (rows.steps.empty()) {
    return;
  }
  parts_.observer->OnStepsStored(rows.steps.size());
  unit_.jobs_with_steps.insert(job->id());
  unit_.mutations.emplace_back(std::move(rows));
  if (late) {
    Edit(job, /*stored=*/true,
         [](Job* failed) { failed->mutable_progress()->clear_remaining_duration(); });
  } else if (parts_.clock->Monotonic() - job->last_publication >= options_.progress_interval) {
    Edit(job, /*stored=*/false, [](Job*) {});
  } else {
    unpublished_.insert(job);
  }
}

void JobEngine::OnRankExited(const AgentSessionPtr& session, const lasp::v1::RankExited& message) {
  const lasp::v1::Fence& fence = message.fence();
  JobRecord* job = FencedJob(*session, fence);
  if (job == nullptr) {
    // One that was stopped, or told of twice: only its slot matters.
    WorkerRecord* worker = workers_.Find(session->worker_id());
    if (worker != nullptr && worker->Release(fence)) {
      PublishWorker(worker);
      schedule_due_ = true;
    }
    return;
  }
  unit_.mutations.emplace_back(PutRankExit{.job_id = job->id(),
                                           .generation = fence.generation(),
                                           .rank = fence.rank(),
                                           .exit_code = message.exit_code()});
  RankGone(job, fence.rank(), message.exit_code(), DescribeExit(message, session->worker_id()));
}

void JobEngine::StopForDrain(WorkerRecord* worker) {
  std::set<JobRecord*> drained;
  for (const WorkerSlot& slot : worker->slots()) {
    if (slot.holder.has_value()) {
      const auto job = jobs_by_uid_.find(slot.holder->uid);
      if (job != jobs_by_uid_.end() && job->second->run != nullptr &&
          job->second->run->generation == slot.holder->generation &&
          !job->second->run->stopping()) {
        drained.insert(job->second.get());
      }
    }
  }
  for (JobRecord* job : drained) {
    DrainGeneration(job, worker->id());
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

void JobEngine::LoseWorker(WorkerRecord* worker, absl::string_view why, absl::string_view message) {
  LASP_LOG(kWarning, "worker lost", {{"worker", worker->id()}, {"message", message}});
  if (worker->session != nullptr) {
    worker->session->registered = false;
    worker->session->Close(absl::UnavailableError(message));
  }
  std::vector<SlotHolder> holders;
  for (const WorkerSlot& slot : worker->slots()) {
    if (slot.holder.has_value()) {
      holders.push_back(*slot.holder);
    }
  }
  worker->Lose();
  worker->lost_time = parts_.clock->Now();
  parts_.leases->Revoke(worker->id());
  for (const SlotHolder& holder : holders) {
    const auto found = jobs_by_uid_.find(holder.uid);
    if (found == jobs_by_uid_.end() || found->second->run == nullptr ||
        found->second->run->generation != holder.generation) {
      continue;
    }
    RankGone(found->second.get(), holder.rank, /*exit_code=*/-1,
             {.reason = std::string(why),
              .message =
                  absl::StrCat("workers/", worker->id(), " with rank ", holder.rank, ": ", message),
              .status = {},
              .actor = "coordinator"});
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

}  // namespace lasp::server
