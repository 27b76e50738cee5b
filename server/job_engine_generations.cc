// The life of a generation: its ranks are placed, started, stopped, and gone.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

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
  RemoveUnfinished(*job, generation);
}

void JobEngine::StartGeneration(JobRecord* job, const std::vector<WorkerRecord*>& workers) {
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
  run->rebuild = TakeLeftStates(job, workers, run->restored_step);
  run->rebuilt = run->rebuild != nullptr;
  if (run->rebuilt) {
    run->restored_step = run->rebuild->state().step();
    run->restored_generation = run->rebuild->generation();
  }
  const bool rebuilt = run->rebuilt;
  const int64_t restored_step = run->restored_step;
  job->progress = nullptr;
  std::set<std::string> hosts;
  run->peers_protocol = kWorkerProtocol.newest;
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    RankRecord& record = run->ranks.emplace_back();
    record.worker_id = workers[rank]->id();
    record.slot = workers[rank]->Claim(job->kind, {.job_name = job->name(),
                                                   .uid = job->uid(),
                                                   .generation = generation,
                                                   .rank = static_cast<int>(rank)});
    record.attached = true;
    run->peers_protocol = std::min(run->peers_protocol, workers[rank]->protocol_version());
    hosts.insert(record.worker_id);
    PublishWorker(workers[rank]);
  }
  BeginRun(job, std::move(run));
  const std::string message =
      absl::StrCat(rebuilt             ? absl::StrCat("goes on after step ", restored_step,
                                                      ", from what surviving ranks had left in memory")
                   : restored_step > 0 ? absl::StrCat("goes on after step ", restored_step)
                   : first             ? "starts"
                                       : "starts again from the first step",
                   ", ", workers.size(), workers.size() == 1 ? " rank" : " ranks", " on ",
                   hosts.size(), hosts.size() == 1 ? " worker" : " workers");
  const absl::Duration queued = now - job->queued_at;
  Transition(job, JobEvent::kGranted,
             rebuilt             ? reason::kRebuiltFromSurvivors
             : restored_step > 0 ? reason::kRestartedFromCheckpoint
             : first             ? reason::kScheduled
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
               changed->set_rebuilt(rebuilt);
               if (rebuilt && job->taken->takes == 1) {
                 // The generation before has come further, even if no checkpoint says so.
                 changed->set_failures_without_checkpoint(0);
               }
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
  assignment->set_peers_protocol_version(job->run->peers_protocol);
  if (job->run->rebuild != nullptr) {
    *assignment->mutable_rebuild() = *job->run->rebuild;
  }
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

void JobEngine::SweepRun(JobRecord* job, absl::Duration now) {
  for (int rank = 0; job->run != nullptr && rank < static_cast<int>(job->run->ranks.size());
       ++rank) {
    const RankRecord& record = job->run->ranks[static_cast<size_t>(rank)];
    if (record.phase != Phase::kExited && record.missing_deadline <= now) {
      RankGone(job, rank, kRankGivenUp,
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
