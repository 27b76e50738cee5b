#include "server/sqlite_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "server/job_state_machine.h"
#include "server/sqlite_schema.h"

namespace lasp::server {
namespace {

// Jobs whose number of steps is remembered; it is counted again for the others.
constexpr size_t kMaxStepCounts = 20'000;
// Revisions of one run of the coordinator: a run begins at its number times this.
constexpr int kRevisionBitsPerRun = 40;

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

absl::StatusOr<StoreContents> SqliteWriter::Load() {
  StoreContents contents;
  LASP_RETURN_IF_ERROR(
      database_.Execute("INSERT INTO meta (key, value) VALUES ('runs', 1) "
                        "ON CONFLICT (key) DO UPDATE SET value = value + 1"));
  LASP_ASSIGN_OR_RETURN(const int64_t runs,
                        database_.QueryInteger("SELECT value FROM meta WHERE key = 'runs'"));
  contents.base_revision = runs << kRevisionBitsPerRun;
  LASP_RETURN_IF_ERROR(LoadJobs(&contents));
  LASP_RETURN_IF_ERROR(LoadRankExits(&contents));
  LASP_RETURN_IF_ERROR(LoadGemmRecords(&contents));
  LASP_RETURN_IF_ERROR(LoadRest(&contents));
  return contents;
}

absl::Status SqliteWriter::LoadJobs(StoreContents* contents) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      SqliteStatement::Prepare(database_, "SELECT id, revision, spec, job FROM jobs ORDER BY id"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) {
      break;
    }
    auto view = std::make_shared<JobView>();
    view->id = rows.Integer();
    view->revision = rows.Integer();
    const absl::string_view spec = rows.Blob();
    view->spec = std::make_shared<const std::string>(spec.data(), spec.size());
    const absl::string_view job = rows.Blob();
    if (!view->job.ParseFromArray(job.data(), static_cast<int>(job.size()))) {
      return absl::DataLossError(
          absl::StrCat("the store's job ", view->id, " cannot be read; restore it from a backup"));
    }
    contents->jobs.push_back({.view = std::move(view), .exits = {}, .gemm_record = {}});
  }
  // Ids of deleted jobs are not used again while anything may remember them.
  LASP_ASSIGN_OR_RETURN(
      contents->last_job_id,
      database_.QueryInteger("SELECT MAX(COALESCE((SELECT MAX(id) FROM jobs), 0), "
                             "COALESCE((SELECT value FROM meta WHERE key = 'last_job_id'), 0))"));
  return absl::OkStatus();
}

absl::Status SqliteWriter::LoadRankExits(StoreContents* contents) {
  LASP_ASSIGN_OR_RETURN(SqliteStatement rows,
                        SqliteStatement::Prepare(
                            database_,
                            "SELECT generation, rank, exit_code FROM rank_exits WHERE job_id = ? "
                            "AND generation = ?"));
  for (StoredJob& job : contents->jobs) {
    if (!MayHaveRanks(job.view->job.state())) {
      continue;
    }
    rows.Bind(job.view->id).Bind(job.view->job.generation());
    while (true) {
      LASP_ASSIGN_OR_RETURN(const bool row, rows.Step());
      if (!row) {
        break;
      }
      StoredRankExit& exit = job.exits.emplace_back();
      exit.generation = rows.Integer();
      exit.rank = static_cast<int>(rows.Integer());
      exit.exit_code = static_cast<int>(rows.Integer());
    }
  }
  return absl::OkStatus();
}

absl::Status SqliteWriter::LoadGemmRecords(StoreContents* contents) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      SqliteStatement::Prepare(database_, "SELECT record FROM gemm_records WHERE job_id = ?"));
  for (StoredJob& job : contents->jobs) {
    if (IsFinished(job.view->job.state()) || job.view->job.generation() == 0) {
      continue;
    }
    rows.Bind(job.view->id);
    LASP_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (row) {
      job.gemm_record = rows.Text();
    }
    rows.Reset();
  }
  return absl::OkStatus();
}

absl::Status SqliteWriter::LoadRest(StoreContents* contents) {
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement workers,
      SqliteStatement::Prepare(
          database_,
          "SELECT worker_id, incarnation, slot_count, gpu_slot_count, drain_requested "
          "FROM workers"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, workers.Step());
    if (!row) {
      break;
    }
    PutWorker& worker = contents->workers.emplace_back();
    worker.worker_id = workers.Text();
    worker.incarnation = workers.Text();
    const auto slots = static_cast<int>(workers.Integer());
    worker.slots.gpu = static_cast<int>(workers.Integer());
    worker.slots.cpu = slots - worker.slots.gpu;
    worker.drain_requested = workers.Integer() != 0;
  }
  // Newest first: where a key has come twice, the first one found counts.
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement requests,
      SqliteStatement::Prepare(database_,
                               "SELECT key, fingerprint, job_name, job_uid, expire_unix_micros "
                               "FROM requests ORDER BY expire_unix_micros DESC, rowid DESC"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, requests.Step());
    if (!row) {
      break;
    }
    PutRequest& request = contents->requests.emplace_back();
    request.key = requests.Text();
    request.fingerprint = static_cast<uint64_t>(requests.Integer());
    request.job_name = requests.Text();
    request.job_uid = requests.Text();
    request.expire_time = absl::FromUnixMicros(requests.Integer());
  }
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement tombstones,
      SqliteStatement::Prepare(database_, "SELECT revision, name FROM tombstones"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, tombstones.Step());
    if (!row) {
      break;
    }
    Tombstone& tombstone = contents->tombstones.emplace_back();
    tombstone.revision = tombstones.Integer();
    tombstone.name = tombstones.Text();
  }
  LASP_ASSIGN_OR_RETURN(
      contents->compacted_revision,
      database_.QueryInteger("SELECT value FROM meta WHERE key = 'compacted_revision'"));
  return absl::OkStatus();
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
  for (const char* table : {"transitions", "generations", "rank_exits", "gemm_records", "steps"}) {
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

absl::Status SqliteWriter::Write(const CompactTombstones& mutation) {
  LASP_RETURN_IF_ERROR(database_.Execute(
      absl::StrCat("DELETE FROM tombstones WHERE revision <= ", mutation.revision)));
  return database_.Execute(absl::StrCat(
      "INSERT INTO meta (key, value) VALUES ('compacted_revision', ", mutation.revision,
      ") ON CONFLICT (key) DO UPDATE SET value = MAX(value, excluded.value)"));
}

}  // namespace lasp::server
