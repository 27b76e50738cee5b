// Where the coordinator's state survives: one interface, so that the controller knows no SQL.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/v1/audit_service.pb.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/step_metrics.pb.h"
#include "lasp/v1/training_job.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "server/audit_query.h"
#include "server/job_view.h"
#include "server/slot_kind.h"

namespace lasp::server {

// --- what a transaction may change ---

// A new job, or a new state of an old one. `created` writes the spec too.
struct PutJob {
  JobViewPtr view;
  bool created = false;
};

// Removes a job with all that is stored of it, and leaves a tombstone.
struct DeleteJob {
  int64_t job_id = 0;
  std::string name;
  int64_t revision = 0;
};

struct AddTransition {
  int64_t job_id = 0;
  // The job's revision with it: orders a job's transitions.
  int64_t revision = 0;
  lasp::v1::Transition transition;
};

// A generation, stored before anything of it is launched.
struct AddGeneration {
  int64_t job_id = 0;
  int64_t generation = 0;
  absl::Time start_time;
};

// A rank of a job's current generation has left.
struct PutRankExit {
  int64_t job_id = 0;
  int64_t generation = 0;
  int rank = 0;
  int exit_code = 0;
};

// The algorithms that a job's matrix products keep.
struct PutGemmRecord {
  int64_t job_id = 0;
  std::string record;
};

// A checkpoint in its present state. Its shards are forgotten unless it is being written.
struct PutCheckpoint {
  int64_t job_id = 0;
  lasp::v1::Checkpoint checkpoint;
};

struct DeleteCheckpoint {
  int64_t job_id = 0;
  int64_t step = 0;
  int64_t generation = 0;
};

// What a rank has said of its shard, until the checkpoint is committed.
struct AddCheckpointShard {
  int64_t job_id = 0;
  int64_t step = 0;
  int64_t generation = 0;
  int rank = 0;
  lasp::v1::ShardWritten shard;
};

// What is still to go from the disk of a job's checkpoints; in the place of what was to go before.
struct PutCheckpointRemoval {
  int64_t job_id = 0;
  std::string uid;
  // The job's, beneath --checkpoint_root.
  std::string folder;
  // 0: all of it, for the job is deleted. Otherwise what its generations up to this one have begun
  // and not finished.
  int64_t generation = 0;
};

// It has gone.
struct DeleteCheckpointRemoval {
  int64_t job_id = 0;
};

struct PutSteps {
  int64_t job_id = 0;
  std::vector<lasp::v1::StepMetrics> steps;
};

struct PutWorker {
  std::string worker_id;
  std::string incarnation;
  PerKind<int> slots;
  // The operator's wish, which outlives both agent and coordinator.
  bool drain_requested = false;
};

// A rank failed on the worker in a way that speaks against it.
struct PutWorkerFailure {
  std::string worker_id;
  absl::Time time;
};

// Those before the time are forgotten.
struct DeleteWorkerFailures {
  std::string worker_id;
  absl::Time before;
};

// Forgets a lost worker.
struct DeleteWorker {
  std::string worker_id;
};

// Remembers a request and its answer.
struct PutRequest {
  // Method, scope and request_id.
  std::string key;
  // Of the request's content.
  uint64_t fingerprint = 0;
  std::string job_name;
  std::string job_uid;
  absl::Time expire_time;
};

// Forgets requests that have expired.
struct ExpireRequests {
  absl::Time now;
};

// The checkpoints that a restored store did not know have been looked for.
struct EndAdoption {};

// Forgets tombstones up to a revision.
struct CompactTombstones {
  int64_t revision = 0;
};

// Stored with the change that it tells of.
struct AddAuditRecord {
  lasp::v1::AuditRecord record;
};

// Forgets some of the records that are older than `before`, or too many.
struct TrimAudit {
  absl::Time before;
  int64_t max_records = 0;
};

using Mutation =
    std::variant<PutJob, DeleteJob, AddTransition, AddGeneration, PutRankExit, PutGemmRecord,
                 PutCheckpoint, DeleteCheckpoint, AddCheckpointShard, PutCheckpointRemoval,
                 DeleteCheckpointRemoval, PutSteps, PutWorker, DeleteWorker, PutWorkerFailure,
                 DeleteWorkerFailures, PutRequest, ExpireRequests, EndAdoption, CompactTombstones,
                 AddAuditRecord, TrimAudit>;

// --- what a start finds ---

struct StoredRankExit {
  int64_t generation = 0;
  int rank = 0;
  int exit_code = 0;
};

struct StoredCheckpoint {
  lasp::v1::Checkpoint checkpoint;
  std::vector<lasp::v1::ShardWritten> shards;
};

struct StoredJob {
  JobViewPtr view;
  // Of the current generation, for jobs that may have ranks.
  std::vector<StoredRankExit> exits;
  // The first step and the newest one, where the current generation has made them; for the same.
  std::vector<lasp::v1::StepMetrics> steps;
  // For jobs that have not ended; empty where none is stored.
  std::string gemm_record;
  // By step, then generation.
  std::vector<StoredCheckpoint> checkpoints;
};

struct StoredTransition {
  int64_t job_id = 0;
  int64_t revision = 0;
  lasp::v1::Transition transition;
};

struct Tombstone {
  int64_t revision = 0;
  std::string name;
};

struct StoreContents {
  // Oldest first.
  std::vector<StoredJob> jobs;
  // By job.
  std::vector<PutCheckpointRemoval> checkpoint_removals;
  std::vector<PutWorker> workers;
  // In the order of time.
  std::vector<PutWorkerFailure> worker_failures;
  std::vector<PutRequest> requests;
  std::vector<Tombstone> tombstones;
  int64_t compacted_revision = 0;
  // Revisions of this run are greater than this, and than all of earlier runs.
  int64_t base_revision = 0;
  // Generations of this run are greater than this: see store_restore.h.
  int64_t generation_floor = 0;
  // It comes from a backup, and what was committed since lies on the disk: see EndAdoption.
  bool adopts_checkpoints = false;
  // Ids of new jobs are greater than this.
  int64_t last_job_id = 0;
};

// Thread-safe.
class JobStore {
 public:
  virtual ~JobStore() = default;

  // Identifies this store for ever.
  virtual const std::string& uuid() const = 0;

  // Everything, once, before the first Commit.
  virtual absl::StatusOr<StoreContents> Load() = 0;

  // Queues a transaction; transactions become durable in this order, each whole or not at all.
  // `committed` is called after that, in the same order, from the writer's thread: quick, must not
  // block. A failing disk delays it until the disk works again. Callbacks of transactions that
  // could not be written before the store is destroyed are never called.
  virtual void Commit(std::vector<Mutation> mutations, std::function<void()> committed) = 0;

  // Transactions queued and not yet durable.
  virtual size_t pending() const = 0;

  // OK, or why nothing can be written now; the store keeps trying.
  virtual absl::Status health() const = 0;

  // --- committed state, read by any thread; each blocks for one short read ---

  // The latest `limit` transitions of a job, oldest first.
  virtual absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id,
                                                                        int limit) const = 0;
  // At most `limit` transitions of a job with a revision below `before`, newest first.
  virtual absl::StatusOr<std::vector<StoredTransition>> TransitionsBefore(int64_t job_id,
                                                                          int64_t before,
                                                                          int limit) const = 0;
  // The latest `limit` transitions of all jobs, newest first. Looks at every transition: for the
  // start.
  virtual absl::StatusOr<std::vector<StoredTransition>> LatestTransitions(int limit) const = 0;
  // How many rows a range of steps has; to_step 0 for the last.
  virtual absl::StatusOr<int64_t> CountSteps(int64_t job_id, int64_t from_step,
                                             int64_t to_step) const = 0;
  // A range of steps in order: each `stride`-th row from the first, and the last row.
  virtual absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadSteps(int64_t job_id,
                                                                       int64_t from_step,
                                                                       int64_t to_step,
                                                                       int64_t stride) const = 0;
  // At most `limit` rows of one generation with a step greater than `after_step`.
  virtual absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadGenerationSteps(
      int64_t job_id, int64_t generation, int64_t after_step, int limit) const = 0;
  // The smallest generation greater than `generation` that has rows; 0 where none has.
  virtual absl::StatusOr<int64_t> NextGeneration(int64_t job_id, int64_t generation) const = 0;
  // At most `limit` audit records.
  virtual absl::StatusOr<AuditPage> ReadAudit(const AuditQuery& query, int limit) const = 0;
};

}  // namespace lasp::server
