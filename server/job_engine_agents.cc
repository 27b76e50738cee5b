// What agents report, fenced: a rank counts only if job, generation, rank and worker are the
// present ones.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/worker_limits.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

// How a rank's exit reads, and as what it counts.
GenerationFailure DescribeExit(const lasp::v1::RankExited& message, const std::string& worker_id) {
  constexpr int kSignalBase = 128;
  GenerationFailure failure;
  failure.status = message.status();
  failure.actor = absl::StrCat("agent/", worker_id);
  const int code = message.exit_code();
  const std::string said = ErrorReason(StatusFromProto(message.status()));
  std::string how = absl::StrCat("exited with ", code);
  if (said == reason::kNonFiniteStep || said == reason::kOutlierStep) {
    failure.reason = said;
  } else if (code == kRankWrongConfiguration) {
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
    case lasp::v1::ConnectRequest::kShardWritten:
      OnShardWritten(session, message.shard_written());
      break;
    case lasp::v1::ConnectRequest::kDraining:
      if (WorkerRecord* worker = workers_.Find(session->worker_id()); worker != nullptr) {
        if (!std::exchange(worker->agent_draining, true)) {
          AddWorkerEvent(worker, worker->state(), event_reason::kAgentDraining,
                         "the agent ends and lets its ranks end their step",
                         absl::StrCat("agent/", worker->id()));
        }
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

RankRecord& JobEngine::NoteAlive(JobRecord* job, const lasp::v1::Fence& fence) {
  RankRecord& rank = job->run->ranks[static_cast<size_t>(fence.rank())];
  rank.attached = true;
  rank.missing_deadline = absl::InfiniteDuration();
  return rank;
}

void JobEngine::OnHeartbeat(const AgentSessionPtr& session, const lasp::v1::Heartbeat& heartbeat) {
  const absl::Duration now = parts_.clock->Monotonic();
  std::set<JobRecord*, ById> heard;
  for (const lasp::v1::RankStatus& status : heartbeat.ranks()) {
    JobRecord* job = FencedJob(*session, status.fence());
    if (job == nullptr) {
      StopStale(session, status.fence());
      continue;
    }
    NoteAlive(job, status.fence());
    if (status.has_progress()) {
      TakeProgress(job, status.fence().rank(), status.progress());
      heard.insert(job);
    }
    if (job->run->stopping() && !job->run->stop_gently &&
        now - job->run->last_stop >= options_.stop_repeat_interval) {
      StopRanks(job, /*gently=*/false, job->run->stop_reason, job->run->leave_state);
    }
  }
  for (JobRecord* const job : heard) {
    CheckProgress(job);
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
  if (message.fence().rank() == 0) {
    KeepGemmRecord(job, message.gemm_record());
  }
  if (job->state() == Job::STATE_RUNNING && !job->run->stopping()) {
    SendStart(job, message.fence().rank());
  }
  AdvanceStart(job);
}

void JobEngine::KeepGemmRecord(JobRecord* job, const std::string& record) {
  if (record.empty() || !job->gemm_record.empty()) {
    return;
  }
  if (record.size() > kMaxGemmRecordBytes) {
    LASP_LOG(kWarning, "a record of matrix products is too large to be kept",
             {{"training_job", job->name()}, {"bytes", record.size()}});
    return;
  }
  job->gemm_record = record;
  unit_.mutations.emplace_back(PutGemmRecord{.job_id = job->id(), .record = record});
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
  job->taken = nullptr;
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
  // What later rows do not tell again is stored with the job, and survives a restart with it.
  bool notable = false;
  for (lasp::v1::StepMetrics& step : *message->mutable_steps()) {
    if (step.step() < 1 || step.step() > job->view->job.progress().max_steps()) {
      LASP_LOG(kWarning, "a step that the job does not have was reported",
               {{"training_job", job->name()}, {"step", step.step()}});
      continue;
    }
    step.set_generation(message->fence().generation());
    TakeStep(job, step);
    notable = notable || step.skipped() || step.has_eval_loss();
    if (step.skipped() || step.outlier()) {
      TellBadStep(job, step);
    }
    rows.steps.push_back(std::move(step));
  }
  if (rows.steps.empty()) {
    return;
  }
  parts_.observer->OnStepsStored(rows.steps.size());
  StepPosition& newest = unit_.new_steps[job->id()];
  for (const lasp::v1::StepMetrics& step : rows.steps) {
    newest = std::max(newest, StepPosition{step.generation(), step.step()});
  }
  unit_.mutations.emplace_back(std::move(rows));
  if (late) {
    Edit(job, /*stored=*/true,
         [](Job* failed) { failed->mutable_progress()->clear_remaining_duration(); });
  } else if (notable) {
    Edit(job, /*stored=*/true, [](Job*) {});
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
  if (ErrorReason(StatusFromProto(message.status())) == "CHECKPOINT_CORRUPT") {
    if (CheckpointRecord* const record =
            job->checkpoints.Find(job->run->restored_step, job->run->restored_generation);
        record != nullptr && record->state() == lasp::v1::Checkpoint::STATE_COMMITTED) {
      LoseCheckpoint(job, record, message.status().message());
    } else if (const auto [source, start] = FindCheckpoint(job->start_from());
               start != nullptr && start == StartOfRun(*job)) {
      LoseCheckpoint(source, start, message.status().message());
    }
  }
  if (message.has_state_left()) {
    KeepLeftState(job, fence.rank(), message.state_left());
  }
  RankGone(job, fence.rank(), message.exit_code(), DescribeExit(message, session->worker_id()));
}

}  // namespace lasp::server
