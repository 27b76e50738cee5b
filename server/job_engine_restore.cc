// A start on a store that an earlier run has left: jobs, and ranks that may still train.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/status_macros.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

// The one that a job is stopped by, and the one before.
constexpr int kTransitionsRead = 2;

// Whether the ranks of a job that is stopped were allowed to end their step, as it came to its
// state by these; oldest first.
bool WasStoppedGently(const std::vector<lasp::v1::Transition>& transitions) {
  bool gently = false;
  for (const lasp::v1::Transition& transition : transitions) {
    const bool trained = transition.from_state() == Job::STATE_RUNNING;
    if (transition.to_state() == Job::STATE_SUSPENDING) {
      // Ranks that drained go on with it.
      gently = trained || (gently && transition.from_state() == Job::STATE_RECOVERING);
    } else {
      gently = trained && transition.to_state() == Job::STATE_RECOVERING &&
               transition.reason() == reason::kWorkerDrained;
    }
  }
  return gently;
}

}  // namespace

absl::Status JobEngine::Restore() {
  LASP_ASSIGN_OR_RETURN(StoreContents contents, parts_.store->Load());
  revision_ = contents.base_revision;
  last_job_id_ = contents.last_job_id;
  generation_floor_ = contents.generation_floor;
  restored_until_ = parts_.clock->Monotonic() + grace_;
  parts_.jobs->Restore(revision_, contents.compacted_revision);
  for (const Tombstone& tombstone : contents.tombstones) {
    parts_.jobs->RestoreTombstone(tombstone.name, tombstone.revision);
  }
  for (PutRequest& request : contents.requests) {
    requests_.Add(std::move(request));
  }
  for (const PutWorker& stored : contents.workers) {
    WorkerRecord* worker = workers_.FindOrAdd(stored.worker_id);
    worker->incarnation = stored.incarnation;
    worker->drain_requested = stored.drain_requested;
    worker->expected_slots = stored.slots;
    worker->lost_time = parts_.clock->Now();
    worker->missed = stored.slots != PerKind<int>();
    PublishWorker(worker);
  }
  for (const PutWorkerFailure& failure : contents.worker_failures) {
    if (WorkerRecord* const worker = workers_.Find(failure.worker_id); worker != nullptr) {
      worker->failures.push_back(failure.time);
    }
  }
  SweepQuarantine();
  for (const auto& [id, worker] : workers_.workers()) {
    // At once, as jobs are: who asks first is to find them.
    parts_.workers->Publish(id, worker->MakeView());
  }
  capacity_ = workers_.Capacity();
  for (StoredJob& stored : contents.jobs) {
    LASP_RETURN_IF_ERROR(RestoreJob(stored));
  }
  LASP_RETURN_IF_ERROR(RestoreEvents(contents.base_revision));
  if (contents.adopts_checkpoints) {
    AdoptCheckpoints();
  }
  RestoreRemovals(contents.checkpoint_removals);
  LASP_LOG(kInfo, "store restored",
           {{"jobs", contents.jobs.size()},
            {"queued", queues_.cpu.size() + queues_.gpu.size()},
            {"with_ranks", running_.size()},
            {"workers", contents.workers.size()}});
  return absl::OkStatus();
}

absl::Status JobEngine::RestoreJob(StoredJob& stored) {
  const JobState state = stored.view->job.state();
  JobRecord* job = AddRecord(stored.view);
  job->gemm_record = stored.gemm_record;
  RestoreCheckpoints(job, std::move(stored.checkpoints));
  parts_.observer->OnTransition(Job::STATE_UNSPECIFIED, state, "RESTORED");
  LASP_RETURN_IF_ERROR(RestoreTimeLimit(job));
  CountQueued(*job, Job::STATE_UNSPECIFIED);
  if (state == Job::STATE_QUEUED) {
    queues_[job->kind][job->id()] = job;
  } else if (state == Job::STATE_RECOVERING) {
    recovering_[job->kind][job->id()] = job;
    job->last_failure = job->view->job.message();
  } else if (IsFinished(state)) {
    finished_.emplace(absl::ToUnixMicros(FromProtoTime(job->view->job.end_time())), job->uid());
  }
  if (!MayHaveRanks(state)) {
    parts_.jobs->Publish(job->view);
    return absl::OkStatus();
  }
  for (const lasp::v1::StepMetrics& step : stored.steps) {
    TakeStep(job, step);
  }
  // Readers may have seen progress that was never stored: a fresh revision shows them this view.
  auto view = std::make_shared<JobView>(*stored.view);
  view->revision = NextRevision();
  if (job->progress != nullptr) {
    *view->job.mutable_progress() = *job->progress;
  }
  job->view = std::move(view);
  parts_.jobs->Publish(job->view);
  return RestoreRun(stored, job);
}

absl::Status JobEngine::RestoreRun(const StoredJob& stored, JobRecord* job) {
  const Job& view = job->view->job;
  const bool was_stopped =
      job->state() != Job::STATE_STARTING && job->state() != Job::STATE_RUNNING;
  bool gently = false;
  if (was_stopped) {
    LASP_ASSIGN_OR_RETURN(const auto transitions,
                          parts_.store->Transitions(job->id(), kTransitionsRead));
    gently = WasStoppedGently(transitions);
  }
  auto run = std::make_unique<GenerationRun>();
  run->generation = view.generation();
  run->restored_step = view.restored_step();
  run->restored_generation = view.restored_generation();
  run->rebuilt = view.rebuilt();
  for (const auto& placement : view.placements()) {
    RankRecord& rank = run->ranks.emplace_back();
    rank.worker_id = std::string(absl::StripPrefix(placement.worker(), "workers/"));
    rank.slot = placement.slot();
    rank.missing_deadline = restored_until_;
  }
  for (const StoredRankExit& exit : stored.exits) {
    if (exit.rank >= 0 && exit.rank < static_cast<int>(run->ranks.size())) {
      RankRecord& rank = run->ranks[static_cast<size_t>(exit.rank)];
      rank.phase = Phase::kExited;
      rank.exit_code = exit.exit_code;
      const bool as_asked = exit.exit_code == kRankDrained || (was_stopped && !gently);
      if (exit.exit_code != kRankDone && !as_asked && !run->symptom.has_value()) {
        // The earlier run was about to decide on it, or had to stop the others for it.
        run->symptom = GenerationFailure{
            .reason = reason::kRankFailed,
            .message = absl::StrCat("rank ", exit.rank, " on workers/", rank.worker_id,
                                    exit.exit_code == kRankGivenUp
                                        ? std::string(" was given up")
                                        : absl::StrCat(" exited with ", exit.exit_code)),
            .status = {},
            .actor = "coordinator"};
        run->symptom_deadline = restored_until_;
      }
    }
  }
  if (was_stopped) {
    // How much time ranks have had is forgotten with the process, and that it was over: their agent
    // gives them no more than at first, and one that has killed them takes nothing back.
    run->stop_reason = view.reason();
    run->stop_gently = gently;
    run->deadline = gently ? restored_until_ + options_.drain_grace : absl::InfiniteDuration();
  } else if (job->state() == Job::STATE_STARTING) {
    run->deadline = restored_until_ + options_.presence_deadline;
  } else if (run->CountAtLeast(Phase::kExited) > 0) {
    // Some are done, and the others should follow.
    run->deadline = restored_until_ + options_.finish_deadline;
  }
  BeginRun(job, std::move(run));
  if (job->run->AllGone()) {
    OnAllRanksGone(job);
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
