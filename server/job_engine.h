// The decisions of the coordinator: what happens to jobs, ranks and workers when users ask, agents
// report and time passes. Knows no thread and no queue; the controller calls it from its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint_service.pb.h"
#include "lasp/v1/training_job_service.pb.h"
#include "lasp/v1/worker_admin_service.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "server/caller.h"
#include "server/checkpoint_task.h"
#include "server/commit_unit.h"
#include "server/core_callbacks.h"
#include "server/core_options.h"
#include "server/core_parts.h"
#include "server/job_record.h"
#include "server/job_state_machine.h"
#include "server/request_ledger.h"
#include "server/worker_registry.h"

namespace lasp::server {

// One thread at a time. Every call may add to the present commit unit; TakeUnit ends it, and
// Publish carries out what it says once its mutations are durable.
class JobEngine {
 public:
  JobEngine(const CoreOptions& options, const CoreParts& parts);
  ~JobEngine();

  // Takes over what an earlier run has stored and publishes it. Once, first.
  absl::Status Restore();

  // --- users ---
  // A request that was refused by `verdict` is answered with it, unless the same request has been
  // carried out before.
  void Create(lasp::v1::CreateTrainingJobRequest request, const Caller& caller,
              const JobCallback& done, absl::Status verdict = absl::OkStatus());
  void Update(const lasp::v1::UpdateTrainingJobRequest& request, const Caller& caller,
              const JobCallback& done);
  void Delete(const lasp::v1::DeleteTrainingJobRequest& request, const Caller& caller,
              const DoneCallback& done);
  void Cancel(const lasp::v1::CancelTrainingJobRequest& request, const Caller& caller,
              const JobCallback& done);
  void Suspend(const lasp::v1::SuspendTrainingJobRequest& request, const Caller& caller,
               const JobCallback& done);
  void Resume(const lasp::v1::ResumeTrainingJobRequest& request, const Caller& caller,
              const JobCallback& done);
  void DrainWorker(const lasp::v1::DrainWorkerRequest& request, const Caller& caller,
                   const WorkerCallback& done);
  void VerifyCheckpoint(const lasp::v1::VerifyCheckpointRequest& request, const Caller& caller,
                        const CheckpointCallback& done);
  void RemoveCheckpoint(const lasp::v1::DeleteCheckpointRequest& request, const Caller& caller,
                        const CheckpointCallback& done);
  // Records that its weights leave the service; sending them is the caller's.
  void ExportCheckpoint(const lasp::v1::ExportCheckpointRequest& request, const Caller& caller,
                        const CheckpointCallback& done);

  // What was done elsewhere, for the audit log.
  void Record(lasp::v1::AuditRecord record);

  // --- agents ---
  // A Hello that CheckHello allows, and where the log of each rank that it lists ends here.
  void Connected(const AgentSessionPtr& session, const lasp::v1::Hello& hello,
                 const std::vector<int64_t>& log_ends);
  void Received(const AgentSessionPtr& session, lasp::v1::ConnectRequest message);
  void Disconnected(const AgentSessionPtr& session);

  // --- the disk ---
  // What came of a task with a checkpoint.
  void CheckpointDone(const CheckpointOutcome& outcome);

  // --- time ---
  // Leases, deadlines, backoff, progress, retention: whatever is due.
  void Sweep();
  // Moves the deadlines of all runs on: what came in for them was held back that long.
  void Postpone(absl::Duration delay);
  // Hands the refusals that are due, or all, to the audit log.
  void RecordRefusals(bool all = false);
  // Starts what can start. Cheap when nothing has changed.
  void RunScheduler();
  // Calls `callback` when everything decided so far is durable.
  void AfterCommit(std::function<void()> callback);

  // --- the results ---
  // Everything decided since the last call.
  CommitUnit TakeUnit();
  // Carries out a unit whose mutations are durable.
  void Publish(const CommitUnit& unit);

 private:
  using RankList = std::vector<std::pair<JobRecord*, int>>;

  // What happens at one moment happens in this order: a run of the coordinator can be repeated.
  struct ById {
    bool operator()(const JobRecord* a, const JobRecord* b) const { return a->id() < b->id(); }

    bool operator()(const WorkerRecord* a, const WorkerRecord* b) const {
      return a->id() < b->id();
    }

    bool operator()(const std::pair<absl::Duration, JobRecord*>& a,
                    const std::pair<absl::Duration, JobRecord*>& b) const {
      return a.first != b.first ? a.first < b.first : a.second->id() < b.second->id();
    }
  };

  // --- job_engine.cc: records and transitions ---
  JobRecord* FindJob(const std::string& name);
  JobRecord* AddRecord(JobViewPtr view);

  int64_t NextRevision() { return ++revision_; }

  // Sets a changed copy of the job's view and queues it for readers; `edit` changes the copy.
  // Stored too unless it is only what agents will report again.
  void Edit(JobRecord* job, bool stored, const std::function<void(lasp::v1::TrainingJob*)>& edit);
  // Applies an event of the state machine; false where the table has none.
  bool Transition(JobRecord* job, JobEvent event, absl::string_view reason,
                  absl::string_view message, absl::string_view actor,
                  const std::function<void(lasp::v1::TrainingJob*)>& edit = nullptr);
  void EnterState(JobRecord* job, JobState from, absl::string_view reason);
  // `actor` as in Transition.
  void RemoveJob(JobRecord* job, absl::string_view actor);

  // --- job_engine_events.cc ---
  // `newest`: no event of this run has a sequence up to it.
  absl::Status RestoreEvents(int64_t newest);
  // Stores a transition of the job, which is at its revision, and tells of it.
  void AddTransitionRow(const JobRecord& job, lasp::v1::Transition transition);
  // Of a job that stays in its state. Not stored.
  void AddJobEvent(const JobRecord& job, int64_t generation, absl::string_view reason,
                   absl::string_view message, lasp::v1::Event::Severity severity);
  void AddDeletionEvent(const JobRecord& job, int64_t revision, absl::string_view actor);
  void AddWorkerEvent(WorkerRecord* worker, lasp::v1::Worker::State to, absl::string_view reason,
                      absl::string_view message, absl::string_view actor,
                      lasp::v1::Event::Severity severity = lasp::v1::Event::SEVERITY_NORMAL);
  void TellConnected(WorkerRecord* worker, bool same_incarnation);
  // Its last rank may have left in any of many ways: told when its view is made.
  void TellDrained(WorkerRecord* worker, lasp::v1::Worker::State state);

  // --- job_engine_restore.cc ---
  absl::Status RestoreJob(StoredJob& stored);
  absl::Status RestoreRun(const StoredJob& stored, JobRecord* job);

  // --- job_engine_requests.cc ---
  // The answer of an earlier request with this key; false where there is none. Sets `key`.
  bool Repeated(absl::string_view method, absl::string_view scope, const std::string& request_id,
                uint64_t fingerprint, const JobCallback& done, std::string* key);
  void Remember(const std::string& key, uint64_t fingerprint, const JobRecord& job);
  // Records with this unit that `caller` has changed the job.
  void Audit(const Caller& caller, absl::string_view method, const JobRecord& job,
             absl::string_view detail = "");
  void Answer(const JobCallback& done, absl::StatusOr<JobViewPtr> answer);

  // --- job_engine_commands.cc ---
  std::string NewJobId(const std::string& project, const std::string& display_name);

  // --- job_engine_wishes.cc ---
  void AnswerState(const JobRecord& job, absl::string_view wish, const JobCallback& done);
  // The job that is to go elsewhere; null where `done` has its answer already. `key` as Repeated's.
  JobRecord* JobOfWish(absl::string_view method, const std::string& name,
                       const std::string& request_id, const JobCallback& done, std::string* key);

  // --- job_engine_sessions.cc ---
  void AdoptRanks(const AgentSessionPtr& session, const lasp::v1::Hello& hello,
                  const std::vector<int64_t>& log_ends, WorkerRecord* worker,
                  bool same_incarnation);
  void RefreshRank(const AgentSessionPtr& session, JobRecord* job, RankRecord* rank,
                   const lasp::v1::RankStatus& status, int64_t log_end);
  // Moves the jobs with ranks on a worker that drains elsewhere.
  void StopForDrain(WorkerRecord* worker);
  void LoseWorker(WorkerRecord* worker, absl::string_view reason, absl::string_view message);

  // --- job_engine_agents.cc ---
  void OnHeartbeat(const AgentSessionPtr& session, const lasp::v1::Heartbeat& heartbeat);
  void OnRankAddress(const AgentSessionPtr& session, const lasp::v1::RankAddress& message);
  void OnRankReady(const AgentSessionPtr& session, const lasp::v1::RankReady& message);
  // The first one that a generation of the job has is kept for the later ones.
  void KeepGemmRecord(JobRecord* job, const std::string& record);
  void OnStepReports(const AgentSessionPtr& session, lasp::v1::StepReports* message);
  // Moves a job's progress on by one reported step.
  void TakeStep(JobRecord* job, const lasp::v1::StepMetrics& step);
  void OnRankExited(const AgentSessionPtr& session, const lasp::v1::RankExited& message);
  // The job whose current generation has this rank on this session's worker; null where it is
  // stale.
  JobRecord* FencedJob(const AgentSession& session, const lasp::v1::Fence& fence);
  // The job that failed for good in this generation while the rank ran on this session's worker.
  JobRecord* FailedJob(const AgentSession& session, const lasp::v1::Fence& fence);
  // The rank of a job that FencedJob has found, whose agent has just spoken of it.
  RankRecord& NoteAlive(JobRecord* job, const lasp::v1::Fence& fence);
  // Tells an agent to kill a rank that should not be there.
  void StopStale(const AgentSessionPtr& session, const lasp::v1::Fence& fence);

  // --- job_engine_checkpoints.cc ---
  void OnShardWritten(const AgentSessionPtr& session, const lasp::v1::ShardWritten& message);
  // Of the checkpoint that the present generation's history goes back to; 0 for none.
  static int64_t ParentStep(const JobRecord& job);
  // Of the present generation.
  CheckpointRecord& AddCheckpoint(JobRecord* job, int64_t step);
  // Beneath --checkpoint_root.
  static std::string CheckpointFolderOf(const JobRecord& job);
  lasp::v1::CheckpointManifest ManifestOf(const JobRecord& job,
                                          const CheckpointRecord& record) const;
  void StoreCheckpoint(JobRecord* job, const CheckpointRecord& record);
  void PublishCheckpoints(const JobRecord& job);
  void AddCheckpointEvent(const JobRecord& job, const CheckpointRecord& record,
                          absl::string_view message, bool warning);
  void StartTask(JobRecord* job, CheckpointRecord* record, CheckpointTask::Kind kind);
  // What NextTask says, after this long.
  void RetryTask(JobRecord* job, CheckpointRecord* record, absl::Duration delay);
  void FailCheckpoint(JobRecord* job, CheckpointRecord* record, const std::string& message);
  // It was committed, and is found damaged.
  void LoseCheckpoint(JobRecord* job, CheckpointRecord* record, const std::string& message);
  // In the job's view.
  void TellNewestCheckpoint(JobRecord* job);
  // No rank of the generation is left: what it has not written whole has failed.
  void EndCheckpointsOf(JobRecord* job, int64_t generation);
  void OnCommitted(JobRecord* job, CheckpointRecord* record, const CheckpointOutcome& outcome);
  void OnVerified(JobRecord* job, CheckpointRecord* record, const absl::Status& status);
  void OnRemoved(JobRecord* job, CheckpointRecord* record, const absl::Status& status);
  void CollectCheckpoint(JobRecord* job, CheckpointRecord* record);
  void RestoreCheckpoints(JobRecord* job, std::vector<StoredCheckpoint> stored);

  // --- job_engine_removals.cc ---
  // What is still to go from the disk of one job's checkpoints.
  struct Removal {
    // As PutCheckpointRemoval.
    std::string uid;
    std::string folder;
    int64_t generation = 0;
    // When it is tried next, of the monotonic clock; until when ranks may still write, so that it
    // is to be done once more.
    absl::Duration at;
    absl::Duration quiet_at;
    // A task on the disk has been given and not been heard of.
    bool busy = false;
  };

  // The job is deleted: nothing of it stays.
  void RemoveFolder(const JobRecord& job);
  // A generation has ended: what it was at, and no rank has told of, goes after a while.
  void RemoveUnfinished(const JobRecord& job, int64_t generation);
  void PutRemoval(const JobRecord& job, Removal removal);
  void StartRemoval(Removal* removal);
  void OnRemovalDone(const CheckpointOutcome& outcome);
  void SweepRemovals(absl::Duration now);
  void RestoreRemovals(const std::vector<PutCheckpointRemoval>& stored);

  // --- job_engine_adoption.cc ---

  // After a restoration from a backup: checkpoints that were committed since, by the disk.
  void AdoptCheckpoints();
  // Whether it was unknown, and is this job's.
  bool AdoptCheckpoint(JobRecord* job, FoundCheckpoint found);
  void SweepCheckpoints(absl::Duration now);

  // --- job_engine_checkpoint_commands.cc ---
  // Null where there is none.
  std::pair<JobRecord*, CheckpointRecord*> FindCheckpoint(const std::string& name);
  // FindCheckpoint, or NOT_FOUND; FAILED_PRECONDITION unless it is committed.
  absl::StatusOr<std::pair<JobRecord*, CheckpointRecord*>> FindCommitted(const std::string& name,
                                                                         absl::string_view verb);
  // What a generation of the job would begin from; null for nothing.
  const CheckpointRecord* StartOf(const JobRecord& job);
  // What the present one has begun from.
  const CheckpointRecord* StartOfRun(const JobRecord& job);
  // Writes a name in the place of `latest`. INVALID_ARGUMENT (start_from) where there is no such
  // checkpoint, or a job of this spec cannot go on from it.
  absl::Status ResolveStart(const std::string& project, lasp::v1::TrainingJob* job);
  // A job that may still need it; null for none.
  const JobRecord* NeededBy(const JobRecord& job, const CheckpointRecord& record) const;
  const JobRecord* NeededBy(const JobRecord& job) const;
  void AnswerCheckpoint(const CheckpointCallback& done,
                        absl::StatusOr<lasp::v1::Checkpoint> answer);

  // --- job_engine_progress.cc ---
  // What a heartbeat says of how a rank comes on.
  void TakeProgress(JobRecord* job, int rank, const lasp::v1::RankProgress& progress);
  // Whether a generation hangs, or a rank of it is slow; at most once a second, since each of its
  // agents' heartbeats asks.
  void CheckProgress(JobRecord* job);
  // Ends a generation that hangs.
  void CheckStalled(JobRecord* job);
  // Tells of ranks that the others wait for.
  void CheckStragglers(JobRecord* job);
  // Tells of steps that went wrong, now and then.
  void TellBadStep(JobRecord* job, const lasp::v1::StepMetrics& step);

  // --- job_engine_quarantine.cc ---
  // A worker has failed a job, or seems to have.
  void AddFailure(const std::string& worker_id, const GenerationFailure& failure);
  // When what is held against it now is too old; InfinitePast where it is not enough.
  absl::Time QuarantineEnd(const WorkerRecord& worker) const;
  // Nothing is held against it any more.
  void ForgiveFailures(WorkerRecord* worker);
  // Publishes anew the workers whose quarantine is over.
  void SweepQuarantine();
  // Numbers of the workers that are to be left out where others can take a job.
  std::vector<int> QuarantinedWorkers() const;

  // --- job_engine_rebuild.cc ---
  // A rank of the present generation has left its state.
  void KeepLeftState(JobRecord* job, int rank, const lasp::v1::StateLeft& left);
  // How a generation on these workers goes on from what was left, by the last one or, where that
  // one failed before it had trained, by the one that it goes on from; null where it does not, or
  // not further than the checkpoint.
  std::shared_ptr<const lasp::v1::Rebuild> TakeLeftStates(JobRecord* job,
                                                          const std::vector<WorkerRecord*>& workers,
                                                          int64_t checkpoint_step);
  // Those up to `last_step` of which rank 0 has told nobody.
  void StoreUnreportedSteps(JobRecord* job, const LeftStates& left, int64_t last_step);

  // --- job_engine_generations.cc ---
  // The job has a run from here on, whose ranks are placed.
  void BeginRun(JobRecord* job, std::unique_ptr<GenerationRun> run);
  void EndRun(JobRecord* job);
  void StartGeneration(JobRecord* job, const std::vector<WorkerRecord*>& workers);
  void SendAssignment(JobRecord* job, int rank);
  void SendPeerAddresses(JobRecord* job, int rank);
  void SendStart(JobRecord* job, int rank);
  void AdvanceStart(JobRecord* job);
  void SweepRun(JobRecord* job, absl::Duration now);

  // --- job_engine_endings.cc ---
  // Tells the ranks that are left to stop; where not gently, perhaps leaving their state behind.
  void StopRanks(JobRecord* job, bool gently, absl::string_view reason, bool leave_state = false);
  void SendStop(JobRecord* job, int rank);
  // A generation has failed: another one, or the end of the job.
  void FailGeneration(JobRecord* job, const GenerationFailure& failure);
  void FailForGood(JobRecord* job, const GenerationFailure& failure);
  // Its ranks stop because a worker of it drains.
  void DrainGeneration(JobRecord* job, const std::string& worker_id);
  // A rank is gone: by its exit, or with its agent (`failure.reason` then says so).
  void RankGone(JobRecord* job, int rank, int exit_code, const GenerationFailure& failure);
  void OnAllRanksGone(JobRecord* job);
  absl::Duration RestartBackoff(int restarts) const;

  // --- job_engine_queue.cc ---
  void Enqueue(JobRecord* job);
  // The job has come from `from` into its state.
  void CountQueued(const JobRecord& job, JobState from);
  // RESOURCE_EXHAUSTED where no further job of the project may be QUEUED.
  absl::Status CheckQueueRoom(const std::string& project) const;
  // The slots for a job: as its first generation had them, before that as its spec and the cluster
  // say.
  SlotKind KindFor(const JobRecord& job) const;
  // Puts each job that waits for its first generation in the queue of its kind.
  void SortQueues();

  struct SchedulePass {
    // Jobs that were started.
    int placed = 0;
    // Slots were given back that others can have at once.
    bool again = false;
  };

  // Starts what can start on one kind.
  SchedulePass ScheduleKind(SlotKind kind);
  // Numbers of the workers whose agents are of a release that does not.
  std::vector<int> WorkersThatDoNotSpeak(int protocol) const;
  void ExplainQueues();
  void ExplainQueue(SlotKind kind);
  // `before`: how many jobs wait in front of it for the same kind.
  std::pair<std::string, std::string> Explain(const JobRecord& job, size_t before) const;
  // The same in numbers, as of the last look at all workers.
  lasp::v1::SlotWait WaitOf(const JobRecord& job, size_t before) const;
  // What all slots are doing.
  void CountSlots();
  // Tells when a job that has failed may start again.
  void TellRestartTime(JobRecord* job, size_t before);

  // --- job_engine_time_limits.cc ---
  // The job has come from `from` into its state: what counts against its time may have changed.
  void LimitTime(JobRecord* job, JobState from);
  // Of its present state, of which so much has passed.
  void SetTimeLimit(JobRecord* job, absl::Duration passed);
  absl::Status RestoreTimeLimit(JobRecord* job);
  // Fails the jobs whose time is over.
  void SweepTimeLimits(absl::Duration now);

  // --- job_engine_sweep.cc ---
  void SweepLeases();
  void PublishProgress(absl::Duration now);
  // Deletes finished jobs whose time is over; true where there are more.
  bool RetireFinished();
  void CompactDeletions();
  void ForgetLostWorkers();

  void Send(const AgentSessionPtr& session, lasp::v1::ConnectResponse message);
  lasp::v1::Fence FenceOf(const JobRecord& job, int rank) const;
  AgentSessionPtr SessionOf(const std::string& worker_id);
  void PublishWorker(WorkerRecord* worker);
  void StoreWorker(const WorkerRecord& worker);

  const CoreOptions options_;
  const CoreParts parts_;
  const absl::Duration grace_;

  CommitUnit unit_;
  int64_t revision_ = 0;
  int64_t last_job_id_ = 0;
  int64_t generation_floor_ = 0;
  RequestLedger requests_;
  WorkerRegistry workers_;
  std::unordered_map<std::string, std::unique_ptr<JobRecord>> jobs_by_uid_;
  std::unordered_map<std::string, JobRecord*> jobs_by_name_;
  // By id: first in, first out among those that wait for the same kind of slot.
  PerKind<std::map<int64_t, JobRecord*>> queues_;
  PerKind<std::map<int64_t, JobRecord*>> recovering_;
  // Jobs with ranks.
  std::map<int64_t, JobRecord*> running_;
  // The ranks of their runs by worker.
  std::unordered_map<std::string, RankList> ranks_on_worker_;
  // Jobs with progress that readers have not seen.
  std::set<JobRecord*, ById> unpublished_;
  // Jobs by the end of the time they may wait or run, of the monotonic clock.
  std::set<std::pair<absl::Duration, JobRecord*>, ById> time_limits_;
  // Jobs that are QUEUED, by project.
  std::unordered_map<std::string, int64_t> queued_by_project_;
  // Jobs that were started from a checkpoint of another, by that other's name.
  std::multimap<std::string, JobRecord*> started_from_;
  // Jobs with a checkpoint whose task is to be tried again.
  std::set<JobRecord*, ById> checkpoint_retries_;
  // By id of jobs, some of which are deleted.
  std::map<int64_t, Removal> removals_;
  // Finished jobs by their end, for retention.
  std::set<std::pair<int64_t, std::string>> finished_;
  // Workers whose views have to be published.
  std::set<WorkerRecord*, ById> changed_workers_;

  // Whether a worker may be in quarantine.
  bool any_quarantined_ = false;
  bool schedule_due_ = true;
  // Of the last look at all workers: where ranks could start, what is kept of that for jobs that
  // are about to, what ranks hold, and what is on workers that take none.
  PerKind<int> free_slots_;
  PerKind<int> kept_slots_;
  PerKind<int> busy_slots_;
  PerKind<int> away_slots_;
  PerKind<int> capacity_;
  // Whether the first job of the queue waits for slots: then a job behind it changes nothing.
  PerKind<bool> queue_blocked_;
  bool explain_due_ = true;
  absl::Duration last_explanation_ = -absl::InfiniteDuration();
  absl::Duration last_tick_ = -absl::InfiniteDuration();
  absl::Duration last_retention_;
  // Until then workers and ranks of an earlier run may come back.
  absl::Duration restored_until_ = -absl::InfiniteDuration();
};

}  // namespace lasp::server
