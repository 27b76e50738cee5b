// How each change of the store is written, and how all of it is read back at a start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "server/job_store.h"
#include "server/sqlite_database.h"

namespace lasp::server {

// The only connection that writes. Used by one thread at a time.
class SqliteWriter {
 public:
  // Opens and migrates the store at `path`.
  static absl::StatusOr<std::unique_ptr<SqliteWriter>> Open(const std::string& path,
                                                            const std::string& vfs,
                                                            int64_t max_steps_per_job);

  absl::StatusOr<std::string> ReadUuid();
  absl::StatusOr<StoreContents> Load();

  absl::Status Begin();
  absl::Status Apply(const Mutation& mutation);
  absl::Status Commit();
  // After an error: nothing since Begin has happened.
  void Rollback();

 private:
  explicit SqliteWriter(int64_t max_steps_per_job) : max_steps_per_job_(max_steps_per_job) {}

  absl::Status Write(const PutJob& mutation);
  absl::Status Write(const DeleteJob& mutation);
  absl::Status Write(const AddTransition& mutation);
  absl::Status Write(const AddGeneration& mutation);
  absl::Status Write(const PutRankExit& mutation);
  absl::Status Write(const PutGemmRecord& mutation);
  absl::Status Write(const PutCheckpoint& mutation);
  absl::Status Write(const DeleteCheckpoint& mutation);
  absl::Status Write(const AddCheckpointShard& mutation);
  absl::Status Write(const PutCheckpointRemoval& mutation);
  absl::Status Write(const DeleteCheckpointRemoval& mutation);
  absl::Status Write(const PutSteps& mutation);
  absl::Status Write(const PutWorker& mutation);
  absl::Status Write(const PutWorkerFailure& mutation);
  absl::Status Write(const DeleteWorkerFailures& mutation);
  absl::Status Write(const DeleteWorker& mutation);
  absl::Status Write(const PutRequest& mutation);
  absl::Status Write(const ExpireRequests& mutation);
  absl::Status Write(const EndAdoption& mutation);
  absl::Status Write(const CompactTombstones& mutation);
  absl::Status Write(const AddAuditRecord& mutation);
  absl::Status Write(const TrimAudit& mutation);

  absl::Status DeleteShards(int64_t job_id, int64_t step, int64_t generation);
  // Leaves every stride-th step and the newest ones when a job has too many.
  absl::Status ThinSteps(int64_t job_id);
  absl::StatusOr<int64_t> CountSteps(int64_t job_id);
  absl::Status LoadJobs(StoreContents* contents);
  absl::Status LoadRankExits(StoreContents* contents);
  absl::Status LoadGemmRecords(StoreContents* contents);
  absl::Status LoadSteps(StoreContents* contents);
  absl::Status LoadCheckpoints(StoreContents* contents);
  absl::Status LoadCheckpointRemovals(StoreContents* contents);
  absl::Status LoadRest(StoreContents* contents);

  const int64_t max_steps_per_job_;
  // Rows of jobs that report now, at least as many as there are.
  std::unordered_map<int64_t, int64_t> step_counts_;
  SqliteDatabase database_;
  SqliteStatement begin_;
  SqliteStatement commit_;
  SqliteStatement insert_job_;
  SqliteStatement update_job_;
  SqliteStatement add_transition_;
  SqliteStatement add_generation_;
  SqliteStatement put_rank_exit_;
  SqliteStatement put_step_;
  SqliteStatement put_request_;
  SqliteStatement add_change_;
  SqliteStatement add_refusal_;
};

}  // namespace lasp::server
