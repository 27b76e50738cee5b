// The life of a generation: its ranks are placed, started, stopped, and gone.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/rank_exit_code.h"
#include "server/job_engine.h"
#include "server/proto_time.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

// Whether another generation would end the same way.
bool EndsTheJob(int exit_code) {
  return exit_code == kRankWrongConfiguration || exit_code == kRankDoNotRequeue;
}

// Whether it may be the worker that failed the rank: a suspect host, a signal, an agent that is
// gone.
bool SpeaksAgainstHost(int exit_code, absl::string_view why) {
  return exit_code == kRankSuspectHost || why == reason::kRankKilled || why == reason::kAgentLost;
}

}  // namespace

void JobEngine::BeginRun(JobRecord* job, std::unique_ptr<GenerationRun> run) {
  job->run = std::move(run);
  running_[job->id()] = job;
  for (size_t rank = 0; rank < job->run->ranks.size(); ++rank) {
    ranks_on_worker_[job->run->ranks[rank].worker_id].emplace_back(job, static_cast<int>(rank));
  }
}

void JobEngine::EndRun(JobRecord* job) {
  running_.erase(job->id());
  for (const RankRecord& rank : job->run->ranks) {
    const auto found = ranks_on_worker_.find(rank.worker_id);
    if (found == ranks_on_worker_.end()) {
      continue;
    }
    std::erase_if(found->second, [job](const auto& entry) { return entry.first == job; });
    if (found->second.empty()) {
      ranks_on_worker_.erase(found);
    }
  }
  const int64_t generation = job->run->generation;
  job->run = nullptr;
  EndCheckpointsOf(job, generation);
}

void JobEngine::StartGeneration(JobRecord* job, const std::vector<WorkerRecord*>& workers) {
  if (!job->start_from().empty() && StartOf(*job) == nullptr) {
    FailForGood(job,
                {.reason = reason::kStartLost,
                 .message = absl::StrCat(job->start_from(),
                                         ", from which the job was to go on, is damaged or gone; "
                                         "submit it from another checkpoint"),
                 .status = {},
                 .actor = "coordinator"});
    return;
  }
  const absl::Duration now = parts_.clock->Monotonic();
  const bool first = job->generation() == 0;
  const int64_t generation = std::max(job->generation(), generation_floor_) + 1;
  auto run = std::make_unique<GenerationRun>();
  run->generation = generation;
  run->start = now;
  run->deadline = now + options_.presence_deadline;
  const CheckpointRecord* const from = parts_.checkpoint_disk == nullptr ? nullptr : StartOf(*job);
  if (from != nullptr) {
    run->restored_step = from->checkpoint.step();
    run->restored_generation = from->checkpoint.generation();
  }
  const int64_t restored_step = run->restored_step;
  job->progress = nullptr;
  std::set<std::string> hosts;
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    RankRecord& record = run->ranks.emplace_back();
    record.worker_id = workers[rank]->id();
    record.slot = workers[rank]->Claim(job->kind, {.job_name = job->name(),
                                                   .uid = job->uid(),
                                                   .generation = generation,
                                                   .rank = static_cast<int>(rank)});
    record.attached = true;
    hosts.insert(record.worker_id);
    PublishWorker(workers[rank]);
  }
  BeginRun(job, std::move(run));
  const std::string message =
      absl::StrCat(restored_step > 0 ? absl::StrCat("goes on after step ", restored_step)
                   : first           ? "starts"
                                     : "starts again from the first step",
                   ", ", workers.size(), workers.size() == 1 ? " rank" : " ranks", " on ",
                   hosts.size(), hosts.size() == 1 ? " worker" : " workers");
  const absl::Duration queued = now - job->queued_at;
  Transition(job, JobEvent::kGranted,
             restored_step > 0 ? reason::kRestartedFromCheckpoint
             : first           ? reason::kScheduled
                               : reason::kRestartedFromStart,
             message, "scheduler", [&](Job* changed) {
               changed->set_generation(generation);
               changed->set_device(job->kind == lasp::v1::Slot::KIND_GPU
                                       ? lasp::v1::TrainingSpec::DEVICE_GPU
                                       : lasp::v1::TrainingSpec::DEVICE_CPU);
               changed->clear_placements();
               for (size_t rank = 0; rank < job->run->ranks.size(); ++rank) {
                 auto* placement = changed->add_placements();
                 placement->set_rank(static_cast<int>(rank));
                 placement->set_worker(absl::StrCat("workers/", job->run->ranks[rank].worker_id));
                 placement->set_slot(job->run->ranks[rank].slot);
               }
               const int64_t max_steps = changed->progress().max_steps();
               changed->mutable_progress()->Clear();
               changed->mutable_progress()->set_max_steps(max_steps);
               changed->mutable_progress()->set_step(restored_step);
               changed->set_restored_step(restored_step);
               changed->set_restored_generation(job->run->restored_generation);
               if (!changed->has_start_time()) {
                 *changed->mutable_start_time() = ToProtoTime(parts_.clock->Now());
               }
             });
  unit_.mutations.emplace_back(AddGeneration{
      .job_id = job->id(), .generation = generation, .start_time = parts_.clock->Now()});
  parts_.observer->OnGenerationStarted(queued);
  for (int rank = 0; rank < job->world_size; ++rank) {
    SendAssignment(job, rank);
  }
}

void JobEngine::SendAssignment(JobRecord* job, int rank) {
  const RankRecord& record = job->run->ranks[static_cast<size_t>(rank)];
  lasp::v1::ConnectResponse response;
  auto* assignment = response.mutable_assignment();
  *assignment->mutable_fence() = FenceOf(*job, rank);
  assignment->set_slot(record.slot);
  assignment->set_world_size(job->world_size);
  assignment->mutable_spec()->ParseFromString(*job->view->spec);
  assignment->set_gemm_record(job->gemm_record);
  if (parts_.checkpoint_disk != nullptr) {
    assignment->set_checkpoint_folder(CheckpointFolderOf(*job));
    if (const CheckpointRecord* const from = StartOfRun(*job); from != nullptr) {
      lasp::v1::CheckpointReference& reference = *assignment->mutable_restore_from();
      reference.set_folder(from->checkpoint.folder());
      reference.set_step(from->checkpoint.step());
      reference.set_generation(from->checkpoint.generation());
      reference.set_manifest_digest(from->checkpoint.manifest_digest());
    }
  }
  Send(SessionOf(record.worker_id), std::move(response));
}

void JobEngine::AdvanceStart(JobRecord* job) {
  GenerationRun& run = *job->run;
  if (job->state() != Job::STATE_STARTING || run.stopping()) {
    return;
  }
  if (run.CountAtLeast(Phase::kReady) == job->world_size) {
    run.deadline = absl::InfiniteDuration();
    Transition(job, JobEvent::kAllReady, reason::kTraining,
               absl::StrCat("generation ", run.generation, " trains"), "coordinator");
    // Not known of a generation that an earlier run of the coordinator started.
    if (run.start > -absl::InfiniteDuration()) {
      parts_.observer->OnGenerationRunning(parts_.clock->Monotonic() - run.start);
    }
    for (int rank = 0; rank < job->world_size; ++rank) {
      SendStart(job, rank);
    }
    return;
  }
  const bool all_known =
      std::all_of(run.ranks.begin(), run.ranks.end(),
                  [](const RankRecord& rank) { return rank.address.has_value(); });
  if (!run.peers_sent && all_known) {
    run.peers_sent = true;
    run.deadline = parts_.clock->Monotonic() + options_.readiness_deadline;
    for (int rank = 0; rank < job->world_size; ++rank) {
      SendPeerAddresses(job, rank);
    }
  }
}

void JobEngine::SendPeerAddresses(JobRecord* job, int rank) {
  lasp::v1::ConnectResponse response;
  auto* peers = response.mutable_peer_addresses();
  *peers->mutable_fence() = FenceOf(*job, rank);
  for (const RankRecord& record : job->run->ranks) {
    peers->add_addresses(record.address.value_or(""));
  }
  Send(SessionOf(job->run->ranks[static_cast<size_t>(rank)].worker_id), std::move(response));
}

void JobEngine::SendStart(JobRecord* job, int rank) {
  lasp::v1::ConnectResponse response;
  *response.mutable_start()->mutable_fence() = FenceOf(*job, rank);
  Send(SessionOf(job->run->ranks[static_cast<size_t>(rank)].worker_id), std::move(response));
}

void JobEngine::StopRanks(JobRecord* job, bool gently, absl::string_view why) {
  GenerationRun& run = *job->run;
  // A killing is not taken back.
  if (run.stopping() && !run.stop_gently) {
    gently = false;
  }
  const absl::Duration now = parts_.clock->Monotonic();
  run.stop_reason = std::string(why);
  run.stop_gently = gently;
  run.last_stop = now;
  run.deadline = gently ? now + options_.drain_grace + options_.stop_repeat_interval
                        : absl::InfiniteDuration();
  for (int rank = 0; rank < static_cast<int>(run.ranks.size()); ++rank) {
    if (run.ranks[static_cast<size_t>(rank)].phase != Phase::kExited) {
      SendStop(job, rank);
    }
  }
}

void JobEngine::SendStop(JobRecord* job, int rank) {
  lasp::v1::ConnectResponse response;
  auto* stop = response.mutable_stop();
  *stop->mutable_fence() = FenceOf(*job, rank);
  stop->set_mode(job->run->stop_gently ? lasp::v1::Stop::MODE_DRAIN : lasp::v1::Stop::MODE_KILL);
  if (job->run->stop_gently) {
    *stop->mutable_grace_period() = ToProtoDuration(options_.drain_grace);
  }
  stop->set_reason(job->run->stop_reason);
  stop->set_dump(job->run->dump);
  Send(SessionOf(job->run->ranks[static_cast<size_t>(rank)].worker_id), std::move(response));
}

absl::Duration JobEngine::RestartBackoff(int restarts) const {
  if (restarts <= 1) {
    return absl::ZeroDuration();
  }
  absl::Duration backoff = options_.restart_backoff;
  for (int i = 2; i < restarts && backoff < options_.max_restart_backoff; ++i) {
    backoff *= 2;
  }
  return std::min(backoff, options_.max_restart_backoff);
}

void JobEngine::FailGeneration(JobRecord* job, const GenerationFailure& failure) {
  const int restarts = job->view->job.restart_count();
  if (restarts >= job->max_restarts) {
    GenerationFailure last = failure;
    last.reason = reason::kRestartsExhausted;
    last.message =
        absl::StrCat("restarted ", restarts, restarts == 1 ? " time" : " times",
                     ", which is all that recovery.max_restarts allows; ", failure.message);
    FailForGood(job, last);
    return;
  }
  const bool bad_step =
      failure.reason == reason::kNonFiniteStep || failure.reason == reason::kOutlierStep;
  int64_t step = 0;
  if (bad_step && absl::SimpleAtoi(ErrorMetadata(StatusFromProto(failure.status), "step"), &step) &&
      step == job->view->job.rolled_back_step()) {
    GenerationFailure last = failure;
    last.message =
        absl::StrCat(failure.message,
                     "; so it was before the job was rolled back: the data, the model or "
                     "the learning rate is at fault, not a device");
    FailForGood(job, last);
    return;
  }
  const int stuck = job->view->job.failures_without_checkpoint() + 1;
  if (parts_.checkpoint_disk != nullptr && job->max_stuck > 0 && stuck >= job->max_stuck &&
      !job->checkpoints.Settling()) {
    GenerationFailure last = failure;
    last.reason = reason::kNoProgress;
    last.message = absl::StrCat(
        stuck, " generations in a row have failed without a newer checkpoint than that of step ",
        job->view->job.checkpoint_step(),
        ", which is what recovery.max_failures_without_checkpoint allows: write checkpoints more "
        "often (spec.checkpoint), or look into the failures; the last one: ",
        failure.message);
    FailForGood(job, last);
    return;
  }
  parts_.observer->OnGenerationFailed(failure.reason);
  job->last_failure = failure.message;
  // What has come further since begins at once again.
  job->retry_at = parts_.clock->Monotonic() + RestartBackoff(std::min(restarts + 1, stuck));
  LASP_LOG(kWarning, "generation failed",
           {{"training_job", job->name()},
            {"generation", job->generation()},
            {"reason", failure.reason},
            {"message", failure.message}});
  Transition(job, JobEvent::kGenerationFailed, failure.reason, failure.message, failure.actor,
             [&](Job* changed) {
               changed->set_restart_count(changed->restart_count() + 1);
               changed->set_failures_without_checkpoint(stuck);
               if (bad_step) {
                 changed->set_rolled_back_step(step);
               }
             });
  StopRanks(job, /*gently=*/false, reason::kPeerFailed);
}

void JobEngine::FailForGood(JobRecord* job, const GenerationFailure& failure) {
  if (job->run != nullptr) {
    parts_.observer->OnGenerationFailed(failure.reason);
  }
  google::rpc::Status error = failure.status;
  if (error.code() == 0) {
    error = StatusToProto(
        ErrorWithReason(absl::StatusCode::kUnavailable, failure.message, failure.reason));
  }
  Transition(job, JobEvent::kFailedForGood, failure.reason, failure.message, failure.actor,
             [&error](Job* changed) { *changed->mutable_error() = error; });
  // Its slots stay held until the agents have told of each exit; the job itself waits for nothing.
  if (job->run != nullptr) {
    StopRanks(job, /*gently=*/false, reason::kPeerFailed);
    EndRun(job);
  }
}

void JobEngine::DrainGeneration(JobRecord* job, const std::string& worker_id) {
  const bool trains = job->state() == Job::STATE_RUNNING;
  const WorkerRecord* worker = workers_.Find(worker_id);
  const bool known = worker != nullptr && worker->draining();
  // A worker that has not said that it drains may be chosen again: not at once, then.
  job->retry_at =
      parts_.clock->Monotonic() + (known ? absl::ZeroDuration() : options_.restart_backoff);
  job->last_failure = absl::StrCat("workers/", worker_id, " drains");
  if (Transition(job, JobEvent::kGenerationDrained, reason::kWorkerDrained,
                 absl::StrCat("workers/", worker_id, " drains; the job starts again elsewhere"),
                 absl::StrCat("agent/", worker_id))) {
    StopRanks(job, /*gently=*/trains, reason::kWorkerDrained);
  }
}

void JobEngine::RankGone(JobRecord* job, int rank, int exit_code,
                         const GenerationFailure& failure) {
  GenerationRun& run = *job->run;
  RankRecord& record = run.ranks[static_cast<size_t>(rank)];
  if (record.phase == Phase::kExited) {
    return;
  }
  record.phase = Phase::kExited;
  record.exit_code = exit_code;
  if (WorkerRecord* worker = workers_.Find(record.worker_id);
      worker != nullptr && worker->Release(FenceOf(*job, rank))) {
    PublishWorker(worker);
    schedule_due_ = true;
  }
  const std::string worker_id = record.worker_id;
  if (exit_code == kRankSuspectHost) {
    job->avoided_workers.insert(worker_id);
  }
  switch (job->state()) {
    case Job::STATE_STARTING:
    case Job::STATE_RUNNING: {
      const WorkerRecord* worker = workers_.Find(worker_id);
      if (exit_code == kRankDone && job->state() == Job::STATE_RUNNING) {
        run.deadline = std::min(run.deadline, parts_.clock->Monotonic() + options_.finish_deadline);
      } else if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      } else if (exit_code == kRankDrained ||
                 (exit_code == kRankRetry && worker != nullptr && worker->draining())) {
        DrainGeneration(job, worker_id);
      } else if (exit_code == kRankRetry && !run.AllGone()) {
        if (!run.symptom.has_value()) {
          run.symptom = failure;
          run.symptom_deadline = parts_.clock->Monotonic() + options_.cause_grace;
        }
      } else {
        if (SpeaksAgainstHost(exit_code, failure.reason)) {
          AddFailure(worker_id, failure.message);
        }
        FailGeneration(job, exit_code == kRankRetry ? run.symptom.value_or(failure) : failure);
      }
      break;
    }
    case Job::STATE_RECOVERING:
      if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      }
      break;
    case Job::STATE_SUSPENDING:
      if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      } else if (exit_code != kRankDone && exit_code != kRankDrained && run.stop_gently) {
        // The others would wait for it in their next collective.
        run.symptom = failure;
        StopRanks(job, /*gently=*/false, reason::kPeerFailed);
      }
      break;
    default:
      break;
  }
  if (job->run != nullptr && job->run->AllGone()) {
    if (job->state() == Job::STATE_RUNNING && run.symptom.has_value()) {
      // A copy: failing may end the run.
      const GenerationFailure symptom = *run.symptom;
      FailGeneration(job, symptom);
    }
  }
  if (job->run != nullptr && job->run->AllGone()) {
    OnAllRanksGone(job);
  }
}

void JobEngine::OnAllRanksGone(JobRecord* job) {
  const bool all_done =
      std::all_of(job->run->ranks.begin(), job->run->ranks.end(),
                  [](const RankRecord& rank) { return rank.exit_code == kRankDone; });
  const int64_t generation = job->run->generation;
  const std::string stopped =
      job->run->symptom.has_value()
          ? absl::StrCat("a failure came before the stop that was asked for: ",
                         job->run->symptom->message, "; resume goes on from the last checkpoint")
          : "stopped as asked; resume starts it again";
  EndRun(job);
  schedule_due_ = true;
  switch (job->state()) {
    case Job::STATE_RUNNING:
    case Job::STATE_SUSPENDING:
      if (all_done) {
        Transition(job, JobEvent::kAllDone, reason::kAllStepsDone,
                   absl::StrCat("generation ", generation, " has done all steps"), "coordinator");
      } else {
        Transition(job, JobEvent::kRanksGone, reason::kSuspended, stopped, "coordinator");
      }
      break;
    case Job::STATE_CANCELLING:
      Transition(job, JobEvent::kRanksGone, reason::kCancelled, "cancelled as asked",
                 "coordinator");
      break;
    default:
      break;
  }
}

void JobEngine::SweepRun(JobRecord* job, absl::Duration now) {
  for (int rank = 0; job->run != nullptr && rank < static_cast<int>(job->run->ranks.size());
       ++rank) {
    const RankRecord& record = job->run->ranks[static_cast<size_t>(rank)];
    if (record.phase != Phase::kExited && record.missing_deadline <= now) {
      RankGone(job, rank, /*exit_code=*/-1,
               {.reason = record.attached ? reason::kRankLost : reason::kAgentLost,
                .message = absl::StrCat("rank ", rank, " on workers/", record.worker_id,
                                        record.attached
                                            ? " is gone, and how it ended is not known"
                                            : " has not come back since the coordinator's restart"),
                .status = {},
                .actor = "coordinator"});
    }
  }
  if (job->run != nullptr && job->run->symptom_deadline <= now && !job->run->stopping()) {
    // A copy: failing may end the run.
    const GenerationFailure symptom = *job->run->symptom;
    FailGeneration(job, symptom);
  }
  if (job->run == nullptr || job->run->deadline > now) {
    return;
  }
  GenerationRun& run = *job->run;
  if (run.stopping()) {
    StopRanks(job, /*gently=*/false, run.stop_reason);
    return;
  }
  run.deadline = absl::InfiniteDuration();
  const Phase wanted = job->state() == Job::STATE_RUNNING ? Phase::kExited
                       : run.peers_sent                   ? Phase::kReady
                                                          : Phase::kAddressed;
  std::string late;
  for (size_t rank = 0; rank < run.ranks.size(); ++rank) {
    if (run.ranks[rank].phase < wanted) {
      absl::StrAppend(&late, late.empty() ? "" : ", ", rank, " on ", run.ranks[rank].worker_id);
    }
  }
  FailGeneration(
      job, {.reason = wanted == Phase::kExited ? reason::kFinishTimeout : reason::kStartTimeout,
            .message =
                absl::StrCat(wanted == Phase::kExited  ? "ranks that did not end with the others: "
                             : wanted == Phase::kReady ? "ranks that did not become ready in time: "
                                                       : "ranks that did not start in time: ",
                             late),
            .status = {},
            .actor = "coordinator"});
}

}  // namespace lasp::server
