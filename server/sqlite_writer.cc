#include "server/sqlite_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/status_macros.h"
#include "server/sqlite_schema.h"

namespace lasp::server {
namespace {

// Jobs whose number of steps is remembered; it is counted again for the others.
constexpr size_t kMaxStepCounts = 20'000;
// Of the audit log, in one transaction.
constexpr int64_t kMaxTrimmed = 5'000;
// The part of the audit log that may be refusals: nobody drives changes out of it by being refused.
constexpr int64_t kRefusalShare = 10;

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteWriter>> SqliteWriter::Open(const std::string& path,
                                                                 const std::string& vfs,
                                                                 int64_t max_steps_per_job) {
  auto writer = std::unique_ptr<SqliteWriter>(new SqliteWriter(max_steps_per_job));
  LASP_ASSIGN_OR_RETURN(writer->database_,
                        SqliteDatabase::Open(path, vfs, SqliteDatabase::Mode::kReadWrite));
  SqliteDatabase& database = writer->database_;
  // auto_vacuum is a property of the file, set before its first table.
  LASP_RETURN_IF_ERROR(database.Execute(
      "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
      "PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; "
      "PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY"));
  LASP_RETURN_IF_ERROR(MigrateSchema(&database, path));

  const struct {
    SqliteStatement* statement;
    const char* sql;
  } statements[] = {
      {&writer->begin_, "BEGIN IMMEDIATE"},
      {&writer->commit_, "COMMIT"},
      {&writer->insert_job_,
       "INSERT OR REPLACE INTO jobs (id, uid, name, state, revision, generation, spec, job) "
       "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"},
      {&writer->update_job_,
       "UPDATE jobs SET state = ?, revision = ?, generation = ?, job = ? WHERE id = ?"},
      {&writer->add_transition_,
       "INSERT OR REPLACE INTO transitions (job_id, revision, transition) VALUES (?, ?, ?)"},
      {&writer->add_generation_,
       "INSERT OR REPLACE INTO generations (job_id, generation, start_unix_micros) "
       "VALUES (?, ?, ?)"},
      {&writer->put_rank_exit_,
       "INSERT OR REPLACE INTO rank_exits (job_id, generation, rank, exit_code) "
       "VALUES (?, ?, ?, ?)"},
      // A late report of an older generation does not undo a newer one's.
      {&writer->put_step_,
       "INSERT INTO steps (job_id, step, generation, metrics) VALUES (?, ?, ?, ?) "
       "ON CONFLICT (job_id, step) DO UPDATE SET generation = excluded.generation, "
       "metrics = excluded.metrics WHERE excluded.generation >= steps.generation"},
      {&writer->put_request_,
       "INSERT INTO requests (key, fingerprint, job_name, job_uid, expire_unix_micros) "
       "VALUES (?, ?, ?, ?, ?)"},
      {&writer->add_change_,
       "INSERT INTO audit_changes (time_unix_micros, principal, resource, record) "
       "VALUES (?, ?, ?, ?)"},
      {&writer->add_refusal_,
       "INSERT INTO audit_refusals (time_unix_micros, principal, resource, record) "
       "VALUES (?, ?, ?, ?)"},
  };

  for (const auto& [statement, sql] : statements) {
    LASP_ASSIGN_OR_RETURN(*statement, SqliteStatement::Prepare(database, sql));
  }
  return writer;
}

absl::StatusOr<std::string> SqliteWriter::ReadUuid() {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement statement,
      SqliteStatement::Prepare(database_, "SELECT value FROM meta WHERE key = 'uuid'"));
  LASP_ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) {
    return absl::DataLossError("the store has no uuid; restore it from a backup");
  }
  return statement.Text();
}

absl::Status SqliteWriter::Begin() { return begin_.Run(); }

absl::Status SqliteWriter::Commit() { return commit_.Run(); }

void SqliteWriter::Rollback() {
  step_counts_.clear();
  if (database_.in_transaction()) {
    const absl::Status status = database_.Execute("ROLLBACK");
    if (!status.ok()) {
      LASP_LOG(kWarning, "rollback failed", {{"error", status.ToString()}});
    }
  }
}

absl::Status SqliteWriter::Apply(const Mutation& mutation) {
  return std::visit([this](const auto& m) { return Write(m); }, mutation);
}

absl::Status SqliteWriter::Write(const PutJob& mutation) {
  const JobView& view = *mutation.view;
  const std::string job = view.job.SerializeAsString();
  if (mutation.created) {
    return insert_job_.Bind(view.id)
        .Bind(view.job.uid())
        .Bind(view.job.name())
        .Bind(view.job.state())
        .Bind(view.revision)
        .Bind(view.job.generation())
        .BindBlob(*view.spec)
        .BindBlob(job)
        .Run();
  }
  return update_job_.Bind(view.job.state())
      .Bind(view.revision)
      .Bind(view.job.generation())
      .BindBlob(job)
      .Bind(view.id)
      .Run();
}

absl::Status SqliteWriter::Write(const DeleteJob& mutation) {
  step_counts_.erase(mutation.job_id);
  LASP_RETURN_IF_ERROR(database_.Execute(
      absl::StrCat("INSERT INTO meta (key, value) VALUES ('last_job_id', ", mutation.job_id,
                   ") ON CONFLICT (key) DO UPDATE SET value = MAX(value, excluded.value)")));
  for (const char* table : {"transitions", "generations", "rank_exits", "gemm_records", "steps",
                            "checkpoints", "checkpoint_shards"}) {
    LASP_RETURN_IF_ERROR(database_.Execute(
        absl::StrCat("DELETE FROM ", table, " WHERE job_id = ", mutation.job_id)));
  }
  LASP_RETURN_IF_ERROR(
      database_.Execute(absl::StrCat("DELETE FROM jobs WHERE id = ", mutation.job_id)));
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement bury,
      SqliteStatement::Prepare(database_,
                               "INSERT OR REPLACE INTO tombstones (revision, name) VALUES (?, ?)"));
  LASP_RETURN_IF_ERROR(bury.Bind(mutation.revision).Bind(mutation.name).Run());
  return database_.Execute("PRAGMA incremental_vacuum(64)");
}

absl::Status SqliteWriter::Write(const AddTransition& mutation) {
  const std::string bytes = mutation.transition.SerializeAsString();
  return add_transition_.Bind(mutation.job_id).Bind(mutation.revision).BindBlob(bytes).Run();
}

absl::Status SqliteWriter::Write(const AddGeneration& mutation) {
  return add_generation_.Bind(mutation.job_id)
      .Bind(mutation.generation)
      .Bind(absl::ToUnixMicros(mutation.start_time))
      .Run();
}

absl::Status SqliteWriter::Write(const PutRankExit& mutation) {
  return put_rank_exit_.Bind(mutation.job_id)
      .Bind(mutation.generation)
      .Bind(mutation.rank)
      .Bind(mutation.exit_code)
      .Run();
}

absl::Status SqliteWriter::Write(const PutGemmRecord& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement put,
      SqliteStatement::Prepare(
          database_, "INSERT OR REPLACE INTO gemm_records (job_id, record) VALUES (?, ?)"));
  return put.Bind(mutation.job_id).Bind(mutation.record).Run();
}

absl::Status SqliteWriter::Write(const PutCheckpoint& mutation) {
  const lasp::v1::Checkpoint& checkpoint = mutation.checkpoint;
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement put,
      SqliteStatement::Prepare(database_,
                               "INSERT OR REPLACE INTO checkpoints (job_id, step, generation, "
                               "state, checkpoint) VALUES (?, ?, ?, ?, ?)"));
  const std::string bytes = checkpoint.SerializeAsString();
  LASP_RETURN_IF_ERROR(put.Bind(mutation.job_id)
                           .Bind(checkpoint.step())
                           .Bind(checkpoint.generation())
                           .Bind(checkpoint.state())
                           .BindBlob(bytes)
                           .Run());
  return checkpoint.state() == lasp::v1::Checkpoint::STATE_WRITING
             ? absl::OkStatus()
             : DeleteShards(mutation.job_id, checkpoint.step(), checkpoint.generation());
}

absl::Status SqliteWriter::DeleteShards(int64_t job_id, int64_t step, int64_t generation) {
  return database_.Execute(absl::StrCat("DELETE FROM checkpoint_shards WHERE job_id = ", job_id,
                                        " AND step = ", step, " AND generation = ", generation));
}

absl::Status SqliteWriter::Write(const DeleteCheckpoint& mutation) {
  LASP_RETURN_IF_ERROR(database_.Execute(
      absl::StrCat("DELETE FROM checkpoints WHERE job_id = ", mutation.job_id,
                   " AND step = ", mutation.step, " AND generation = ", mutation.generation)));
  return DeleteShards(mutation.job_id, mutation.step, mutation.generation);
}

absl::Status SqliteWriter::Write(const AddCheckpointShard& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement add,
      SqliteStatement::Prepare(database_,
                               "INSERT OR REPLACE INTO checkpoint_shards (job_id, step, "
                               "generation, rank, shard) VALUES (?, ?, ?, ?, ?)"));
  const std::string bytes = mutation.shard.SerializeAsString();
  return add.Bind(mutation.job_id)
      .Bind(mutation.step)
      .Bind(mutation.generation)
      .Bind(mutation.rank)
      .BindBlob(bytes)
      .Run();
}

absl::Status SqliteWriter::Write(const PutCheckpointRemoval& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement put,
      SqliteStatement::Prepare(database_,
                               "INSERT OR REPLACE INTO checkpoint_removals (job_id, uid, folder, "
                               "generation) VALUES (?, ?, ?, ?)"));
  return put.Bind(mutation.job_id)
      .Bind(mutation.uid)
      .Bind(mutation.folder)
      .Bind(mutation.generation)
      .Run();
}

absl::Status SqliteWriter::Write(const DeleteCheckpointRemoval& mutation) {
  return database_.Execute(
      absl::StrCat("DELETE FROM checkpoint_removals WHERE job_id = ", mutation.job_id));
}

absl::Status SqliteWriter::Write(const PutSteps& mutation) {
  for (const lasp::v1::StepMetrics& step : mutation.steps) {
    const std::string bytes = step.SerializeAsString();
    LASP_RETURN_IF_ERROR(put_step_.Bind(mutation.job_id)
                             .Bind(step.step())
                             .Bind(step.generation())
                             .BindBlob(bytes)
                             .Run());
  }
  auto count = step_counts_.find(mutation.job_id);
  if (count == step_counts_.end()) {
    if (step_counts_.size() >= kMaxStepCounts) {
      step_counts_.clear();
    }
    LASP_ASSIGN_OR_RETURN(const int64_t rows, CountSteps(mutation.job_id));
    count = step_counts_.emplace(mutation.job_id, rows).first;
  } else {
    count->second += static_cast<int64_t>(mutation.steps.size());
  }
  return count->second > max_steps_per_job_ ? ThinSteps(mutation.job_id) : absl::OkStatus();
}

absl::StatusOr<int64_t> SqliteWriter::CountSteps(int64_t job_id) {
  return database_.QueryInteger(absl::StrCat("SELECT COUNT(*) FROM steps WHERE job_id = ", job_id));
}

absl::Status SqliteWriter::ThinSteps(int64_t job_id) {
  LASP_ASSIGN_OR_RETURN(const int64_t rows, CountSteps(job_id));
  if (rows > max_steps_per_job_) {
    LASP_ASSIGN_OR_RETURN(const int64_t last,
                          database_.QueryInteger(
                              absl::StrCat("SELECT MAX(step) FROM steps WHERE job_id = ", job_id)));
    // Half of the room for the whole run, a fifth for the newest steps: thinning is rare then, and
    // because strides are powers of two, what one pass keeps the next one finds again.
    int64_t stride = 2;
    while (last / stride > max_steps_per_job_ / 2) {
      stride *= 2;
    }
    LASP_RETURN_IF_ERROR(database_.Execute(
        absl::StrCat("DELETE FROM steps WHERE job_id = ", job_id, " AND step > 1 AND step <= ",
                     last - max_steps_per_job_ / 5, " AND step % ", stride, " <> 0")));
  }
  LASP_ASSIGN_OR_RETURN(step_counts_[job_id], CountSteps(job_id));
  return absl::OkStatus();
}

absl::Status SqliteWriter::Write(const PutWorker& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement put,
      SqliteStatement::Prepare(database_,
                               "INSERT OR REPLACE INTO workers (worker_id, incarnation, "
                               "slot_count, gpu_slot_count, drain_requested) "
                               "VALUES (?, ?, ?, ?, ?)"));
  return put.Bind(mutation.worker_id)
      .Bind(mutation.incarnation)
      .Bind(mutation.slots.cpu + mutation.slots.gpu)
      .Bind(mutation.slots.gpu)
      .Bind(mutation.drain_requested ? 1 : 0)
      .Run();
}

absl::Status SqliteWriter::Write(const PutWorkerFailure& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement put,
      SqliteStatement::Prepare(
          database_, "INSERT INTO worker_failures (worker_id, time_unix_micros) VALUES (?, ?)"));
  return put.Bind(mutation.worker_id).Bind(absl::ToUnixMicros(mutation.time)).Run();
}

absl::Status SqliteWriter::Write(const DeleteWorkerFailures& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement remove,
      SqliteStatement::Prepare(
          database_, "DELETE FROM worker_failures WHERE worker_id = ? AND time_unix_micros < ?"));
  return remove.Bind(mutation.worker_id).Bind(absl::ToUnixMicros(mutation.before)).Run();
}

absl::Status SqliteWriter::Write(const DeleteWorker& mutation) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement remove,
      SqliteStatement::Prepare(database_, "DELETE FROM workers WHERE worker_id = ?"));
  return remove.Bind(mutation.worker_id).Run();
}

absl::Status SqliteWriter::Write(const PutRequest& mutation) {
  return put_request_.Bind(mutation.key)
      .Bind(static_cast<int64_t>(mutation.fingerprint))
      .Bind(mutation.job_name)
      .Bind(mutation.job_uid)
      .Bind(absl::ToUnixMicros(mutation.expire_time))
      .Run();
}

absl::Status SqliteWriter::Write(const ExpireRequests& mutation) {
  return database_.Execute(absl::StrCat("DELETE FROM requests WHERE expire_unix_micros <= ",
                                        absl::ToUnixMicros(mutation.now)));
}

absl::Status SqliteWriter::Write(const EndAdoption& /*mutation*/) {
  return database_.Execute("DELETE FROM meta WHERE key = 'adopts_checkpoints'");
}

absl::Status SqliteWriter::Write(const CompactTombstones& mutation) {
  LASP_RETURN_IF_ERROR(database_.Execute(
      absl::StrCat("DELETE FROM tombstones WHERE revision <= ", mutation.revision)));
  return database_.Execute(absl::StrCat(
      "INSERT INTO meta (key, value) VALUES ('compacted_revision', ", mutation.revision,
      ") ON CONFLICT (key) DO UPDATE SET value = MAX(value, excluded.value)"));
}

absl::Status SqliteWriter::Write(const AddAuditRecord& mutation) {
  const lasp::v1::AuditRecord& record = mutation.record;
  const std::string bytes = record.SerializeAsString();
  SqliteStatement& add = record.code() == 0 ? add_change_ : add_refusal_;
  return add.Bind(absl::ToUnixMicros(FromProtoTime(record.time())))
      .Bind(record.principal())
      .Bind(record.resource())
      .BindBlob(bytes)
      .Run();
}

absl::Status SqliteWriter::Write(const TrimAudit& mutation) {
  const auto trim = [this, &mutation](const char* table, int64_t max_records) {
    // Ids follow one another, and the newest row is never the one to go first.
    return database_.Execute(absl::StrCat(
        "DELETE FROM ", table, " WHERE id IN (SELECT id FROM (SELECT id, time_unix_micros FROM ",
        table, " ORDER BY id LIMIT ", kMaxTrimmed, ") WHERE time_unix_micros < ",
        absl::ToUnixMicros(mutation.before), " OR id <= (SELECT MAX(id) FROM ", table, ") - ",
        max_records, ")"));
  };
  LASP_RETURN_IF_ERROR(trim("audit_changes", mutation.max_records));
  return trim("audit_refusals", mutation.max_records / kRefusalShare);
}

}  // namespace lasp::server
