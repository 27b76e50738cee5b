#include "server/job_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/resource_name.h"

namespace lasp::server {
namespace {

// Whether the loss of a rank leaves each part of the training's state with another one.
bool HoldsReplicas(const lasp::v1::ParallelismSpec& parallelism) {
  using DataParallel = lasp::v1::DataParallelSpec;
  const DataParallel& data = parallelism.data_parallel();
  if (parallelism.sequence_parallel().method() ==
      lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP) {
    return false;  // each has its own heads
  }
  switch (data.method()) {
    case DataParallel::METHOD_ZERO1:
    case DataParallel::METHOD_ZERO2:
    case DataParallel::METHOD_ZERO3:
    case DataParallel::METHOD_FSDP:
      return data.shard_group() == DataParallel::SHARD_GROUP_SP && data.size() > 1;
    default:
      return parallelism.sequence_parallel().size() > 1 || data.size() > 1;
  }
}

// The worker protocol since which ranks do all that the spec asks for.
int ProtocolFor(const lasp::v1::TrainingSpec& spec) {
  using lasp::v1::DataParallelSpec;
  using lasp::v1::DataSpec;
  using lasp::v1::MemorySpec;
  using lasp::v1::ModelSpec;
  using lasp::v1::OptimizerSpec;
  using lasp::v1::SequenceParallelSpec;
  using lasp::v1::TrainingSpec;
  const lasp::v1::ParallelismSpec& parallelism = spec.parallelism();
  const SequenceParallelSpec::Method method = parallelism.sequence_parallel().method();
  const bool linear_transformer =
      spec.model().architecture() == ModelSpec::ARCHITECTURE_LINEAR_TRANSFORMER;
  const bool softmax = absl::StrContains(spec.model().layer_pattern(), 'N');
  const bool packed = spec.data().documents() == DataSpec::DOCUMENTS_PACKED;
  if (softmax && (method == SequenceParallelSpec::METHOD_MEGATRON_SP ||
                  (packed && spec.device() != TrainingSpec::DEVICE_CPU))) {
    return kHybridsProtocol;
  }
  if (method == SequenceParallelSpec::METHOD_MEGATRON_SP || softmax || packed ||
      spec.optimizer().state_type() == OptimizerSpec::STATE_TYPE_BF16 ||
      (spec.device() == TrainingSpec::DEVICE_GPU &&
       (linear_transformer || method == SequenceParallelSpec::METHOD_RING_ATTENTION))) {
    return kLayersProtocol;
  }
  const bool always_known =
      spec.model().architecture() <= ModelSpec::ARCHITECTURE_TRANSNORMER &&
      method <= SequenceParallelSpec::METHOD_LASP &&
      (parallelism.data_parallel().method() == DataParallelSpec::METHOD_UNSPECIFIED ||
       parallelism.data_parallel().method() == DataParallelSpec::METHOD_DDP) &&
      spec.memory().activations() <= MemorySpec::ACTIVATIONS_KEEP;
  return always_known ? kWorkerProtocol.oldest : kStrategiesProtocol;
}

}  // namespace

using Job = lasp::v1::TrainingJob;

JobEngine::JobEngine(const CoreOptions& options, const CoreParts& parts)
    : options_(options),
      parts_(parts),
      grace_(std::max(options.reconnect_grace, 3 * options.lease_duration)),
      last_retention_(parts.clock->Monotonic()) {}

JobEngine::~JobEngine() = default;

JobRecord* JobEngine::FindJob(const std::string& name) {
  const auto found = jobs_by_name_.find(name);
  return found == jobs_by_name_.end() ? nullptr : found->second;
}

JobRecord* JobEngine::AddRecord(JobViewPtr view) {
  auto record = std::make_unique<JobRecord>();
  JobRecord* job = record.get();
  job->view = std::move(view);
  job->queued_at = parts_.clock->Monotonic();
  lasp::v1::TrainingSpec spec;
  spec.ParseFromString(*job->view->spec);
  job->group_size = std::max(1, spec.parallelism().sequence_parallel().size());
  job->world_size = job->group_size * std::max(1, spec.parallelism().data_parallel().size());
  job->replicated = HoldsReplicas(spec.parallelism());
  job->spec_protocol = ProtocolFor(spec);
  job->max_restarts = spec.recovery().has_max_restarts() ? spec.recovery().max_restarts() : 5;
  job->max_stuck = spec.recovery().has_max_failures_without_checkpoint()
                       ? spec.recovery().max_failures_without_checkpoint()
                       : 3;
  if (spec.has_max_queue_duration()) {
    job->max_queue_duration = FromProtoDuration(spec.max_queue_duration());
  }
  if (spec.has_max_run_duration()) {
    job->max_run_duration = FromProtoDuration(spec.max_run_duration());
  }
  job->device = spec.device();
  job->has_initial_weights = spec.model().has_initial_weights();
  job->kind = KindFor(*job);
  if (!job->start_from().empty()) {
    const absl::StatusOr<CheckpointName> start = ParseCheckpointName(job->start_from());
    if (start.ok()) {
      started_from_.emplace(start->job.ToString(), job);
    }
  }
  jobs_by_name_[job->name()] = job;
  jobs_by_uid_[job->uid()] = std::move(record);
  return job;
}

void JobEngine::Edit(JobRecord* job, bool stored, const std::function<void(Job*)>& edit) {
  auto view = std::make_shared<JobView>(*job->view);
  view->revision = NextRevision();
  if (job->progress != nullptr) {
    *view->job.mutable_progress() = *job->progress;
  }
  edit(&view->job);
  *view->job.mutable_update_time() = ToProtoTime(parts_.clock->Now());
  job->view = std::move(view);
  job->last_publication = parts_.clock->Monotonic();
  unpublished_.erase(job);
  unit_.published_jobs.push_back(job->view);
  if (stored) {
    unit_.mutations.emplace_back(PutJob{.view = job->view, .created = false});
  }
}

bool JobEngine::Transition(JobRecord* job, JobEvent event, absl::string_view reason,
                           absl::string_view message, absl::string_view actor,
                           const std::function<void(Job*)>& edit) {
  const JobState from = job->state();
  const std::optional<JobState> to = NextState(from, event);
  if (!to.has_value()) {
    return false;
  }
  const auto now = ToProtoTime(parts_.clock->Now());
  Edit(job, /*stored=*/true, [&](Job* changed) {
    changed->set_state(*to);
    changed->set_reason(std::string(reason));
    changed->set_message(std::string(message));
    changed->clear_slot_wait();
    if (IsFinished(*to)) {
      *changed->mutable_end_time() = now;
      changed->mutable_progress()->clear_remaining_duration();
    }
    if (edit != nullptr) {
      edit(changed);
    }
  });
  lasp::v1::Transition transition;
  transition.set_from_state(from);
  transition.set_to_state(*to);
  transition.set_reason(std::string(reason));
  transition.set_message(std::string(message));
  transition.set_actor(std::string(actor));
  transition.set_generation(job->generation());
  *transition.mutable_time() = now;
  AddTransitionRow(*job, std::move(transition));
  EnterState(job, from, reason);
  return true;
}

void JobEngine::EnterState(JobRecord* job, JobState from, absl::string_view reason) {
  const JobState to = job->state();
  parts_.observer->OnTransition(from, to, reason);
  LimitTime(job, from);
  CountQueued(*job, from);
  if (from == Job::STATE_QUEUED) {
    queues_[job->kind].erase(job->id());
    schedule_due_ = true;
    explain_due_ = true;
  }
  if (from == Job::STATE_RECOVERING) {
    recovering_[job->kind].erase(job->id());
    schedule_due_ = true;
  }
  if (to == Job::STATE_QUEUED) {
    Enqueue(job);
  } else if (to == Job::STATE_RECOVERING) {
    recovering_[job->kind][job->id()] = job;
    job->queued_at = parts_.clock->Monotonic();
    schedule_due_ = true;
  }
  if (IsFinished(to)) {
    finished_.emplace(absl::ToUnixMicros(FromProtoTime(job->view->job.end_time())), job->uid());
    unit_.ended_uids.insert(job->uid());
    unit_.new_steps.try_emplace(job->id());
    job->progress = nullptr;
    LASP_LOG(kInfo, "job ended",
             {{"training_job", job->name()},
              {"state", JobStateName(to)},
              {"generation", job->generation()},
              {"reason", reason}});
  }
}

void JobEngine::RemoveJob(JobRecord* job, absl::string_view actor) {
  const DeleteJob deletion{.job_id = job->id(), .name = job->name(), .revision = NextRevision()};
  unit_.mutations.emplace_back(deletion);
  unit_.deleted_jobs.push_back(deletion);
  unit_.deleted_uids.push_back(job->uid());
  AddDeletionEvent(*job, deletion.revision, actor);
  parts_.observer->OnTransition(job->state(), Job::STATE_UNSPECIFIED, "DELETED");
  finished_.erase({absl::ToUnixMicros(FromProtoTime(job->view->job.end_time())), job->uid()});
  unpublished_.erase(job);
  checkpoint_retries_.erase(job);
  if (!job->checkpoints.records().empty()) {
    unit_.published_checkpoints[job->uid()] =
        std::make_shared<const std::vector<lasp::v1::Checkpoint>>();
  }
  RemoveFolder(*job);
  const std::string uid = job->uid();
  if (!job->start_from().empty()) {
    std::erase_if(started_from_, [job](const auto& entry) { return entry.second == job; });
  }
  jobs_by_name_.erase(job->name());
  jobs_by_uid_.erase(uid);
}

void JobEngine::AfterCommit(std::function<void()> callback) {
  unit_.callbacks.push_back(std::move(callback));
}

CommitUnit JobEngine::TakeUnit() {
  for (WorkerRecord* worker : changed_workers_) {
    WorkerViewPtr view = worker->MakeView();
    TellDrained(worker, view->worker.state());
    unit_.published_workers.emplace_back(worker->id(), std::move(view));
  }
  changed_workers_.clear();
  return std::exchange(unit_, {});
}

void JobEngine::Publish(const CommitUnit& unit) {
  for (const JobViewPtr& view : unit.published_jobs) {
    parts_.jobs->Publish(view);
  }
  for (size_t i = 0; i < unit.deleted_jobs.size(); ++i) {
    parts_.jobs->Delete(unit.deleted_uids[i], unit.deleted_jobs[i].revision);
    parts_.log_remover->Remove(unit.deleted_uids[i]);
  }
  for (const auto& [uid, list] : unit.published_checkpoints) {
    parts_.checkpoints->Publish(uid, list);
  }
  if (parts_.checkpoint_disk != nullptr) {
    for (const CheckpointTask& task : unit.checkpoint_tasks) {
      parts_.checkpoint_disk->Start(task);
    }
  }
  for (const auto& [worker_id, view] : unit.published_workers) {
    parts_.workers->Publish(worker_id, view);
  }
  // Whoever is answered finds it in the list.
  parts_.events->Append(unit.events);
  for (const auto& [session, message] : unit.messages) {
    session->Send(message);
  }
  for (const auto& [session, sequence] : unit.acknowledged) {
    lasp::v1::ConnectResponse response;
    response.set_acked_sequence(sequence);
    response.mutable_ack();
    session->Send(std::move(response));
  }
  for (const auto& callback : unit.callbacks) {
    callback();
  }
  if (!unit.published_jobs.empty() || !unit.deleted_jobs.empty()) {
    parts_.watches->Notify();
  }
  for (const auto& [job_id, newest] : unit.new_steps) {
    parts_.metrics->Notify(job_id, newest);
  }
  for (const std::string& uid : unit.ended_uids) {
    parts_.logs->Notify(uid);
  }
}

void JobEngine::Send(const AgentSessionPtr& session, lasp::v1::ConnectResponse message) {
  if (session != nullptr) {
    unit_.messages.emplace_back(session, std::move(message));
  }
}

lasp::v1::Fence JobEngine::FenceOf(const JobRecord& job, int rank) const {
  lasp::v1::Fence fence;
  fence.set_training_job(job.name());
  fence.set_uid(job.uid());
  fence.set_generation(job.run != nullptr ? job.run->generation : job.generation());
  fence.set_rank(rank);
  return fence;
}

AgentSessionPtr JobEngine::SessionOf(const std::string& worker_id) {
  const WorkerRecord* worker = workers_.Find(worker_id);
  return worker == nullptr ? nullptr : worker->session;
}

void JobEngine::PublishWorker(WorkerRecord* worker) {
  workers_.Touch(worker);
  changed_workers_.insert(worker);
}

void JobEngine::StoreWorker(const WorkerRecord& worker) {
  unit_.mutations.emplace_back(
      PutWorker{.worker_id = worker.id(),
                .incarnation = worker.incarnation,
                // One that left as it should is not expected back.
                .slots = worker.left() ? PerKind<int>() : worker.known_slots(),
                .drain_requested = worker.drain_requested});
}

}  // namespace lasp::server
