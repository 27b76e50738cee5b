// What a start of the coordinator reads from its store.
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "server/job_state_machine.h"
#include "server/sqlite_writer.h"

namespace lasp::server {
namespace {

// Revisions of one run of the coordinator: a run begins at its number times this.
constexpr int kRevisionBitsPerRun = 40;

// A row holds the defaults that there were when its job was created. What has come since is written
// out here, and not in the row, which stays as the release before knows it. Null where it cannot be
// read.
std::shared_ptr<const std::string> CompleteSpec(absl::string_view stored) {
  lasp::v1::TrainingSpec spec;
  if (!spec.ParseFromArray(stored.data(), static_cast<int>(stored.size()))) {
    return nullptr;
  }
  FillDefaults(&spec);
  return std::make_shared<const std::string>(spec.SerializeAsString());
}

}  // namespace

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
  LASP_RETURN_IF_ERROR(LoadSteps(&contents));
  LASP_RETURN_IF_ERROR(LoadCheckpoints(&contents));
  LASP_RETURN_IF_ERROR(LoadCheckpointRemovals(&contents));
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
    view->spec = CompleteSpec(rows.Blob());
    const absl::string_view job = rows.Blob();
    if (view->spec == nullptr ||
        !view->job.ParseFromArray(job.data(), static_cast<int>(job.size()))) {
      return absl::DataLossError(
          absl::StrCat("the store's job ", view->id, " cannot be read; restore it from a backup"));
    }
    contents->jobs.push_back(
        {.view = std::move(view), .exits = {}, .steps = {}, .gemm_record = {}, .checkpoints = {}});
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

absl::Status SqliteWriter::LoadSteps(StoreContents* contents) {
  // An older generation may have come further.
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      SqliteStatement::Prepare(database_,
                               "SELECT metrics FROM steps WHERE job_id = ?1 AND generation = ?2 "
                               "AND step IN (1, (SELECT step FROM steps WHERE job_id = ?1 AND "
                               "generation = ?2 ORDER BY step DESC LIMIT 1)) ORDER BY step"));
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
      const absl::string_view bytes = rows.Blob();
      if (!job.steps.emplace_back().ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
        return absl::DataLossError(absl::StrCat("the store's steps of job ", job.view->id,
                                                " cannot be read; restore it from a backup"));
      }
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

absl::Status SqliteWriter::LoadCheckpoints(StoreContents* contents) {
  std::unordered_map<int64_t, StoredJob*> jobs;
  for (StoredJob& job : contents->jobs) {
    jobs[job.view->id] = &job;
  }
  const auto damaged = [](int64_t job_id) {
    return absl::DataLossError(absl::StrCat("the store's checkpoints of job ", job_id,
                                            " cannot be read; restore it from a backup"));
  };
  LASP_ASSIGN_OR_RETURN(SqliteStatement rows,
                        SqliteStatement::Prepare(database_,
                                                 "SELECT job_id, checkpoint FROM checkpoints "
                                                 "ORDER BY job_id, step, generation"));
  LASP_ASSIGN_OR_RETURN(
      SqliteStatement shards,
      SqliteStatement::Prepare(database_,
                               "SELECT shard FROM checkpoint_shards WHERE job_id = ? "
                               "AND step = ? AND generation = ? ORDER BY rank"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) {
      return absl::OkStatus();
    }
    const int64_t job_id = rows.Integer();
    const absl::string_view bytes = rows.Blob();
    const auto job = jobs.find(job_id);
    if (job == jobs.end()) {
      continue;
    }
    StoredCheckpoint& stored = job->second->checkpoints.emplace_back();
    if (!stored.checkpoint.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      return damaged(job_id);
    }
    if (stored.checkpoint.state() != lasp::v1::Checkpoint::STATE_WRITING) {
      continue;
    }
    shards.Bind(job_id).Bind(stored.checkpoint.step()).Bind(stored.checkpoint.generation());
    while (true) {
      LASP_ASSIGN_OR_RETURN(const bool shard, shards.Step());
      if (!shard) {
        break;
      }
      const absl::string_view text = shards.Blob();
      if (!stored.shards.emplace_back().ParseFromArray(text.data(),
                                                       static_cast<int>(text.size()))) {
        return damaged(job_id);
      }
    }
  }
}

absl::Status SqliteWriter::LoadCheckpointRemovals(StoreContents* contents) {
  LASP_ASSIGN_OR_RETURN(SqliteStatement rows,
                        SqliteStatement::Prepare(database_,
                                                 "SELECT job_id, uid, folder, generation FROM "
                                                 "checkpoint_removals ORDER BY job_id"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) {
      return absl::OkStatus();
    }
    PutCheckpointRemoval& removal = contents->checkpoint_removals.emplace_back();
    removal.job_id = rows.Integer();
    removal.uid = rows.Text();
    removal.folder = rows.Text();
    removal.generation = rows.Integer();
  }
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
  LASP_ASSIGN_OR_RETURN(SqliteStatement failures,
                        SqliteStatement::Prepare(database_,
                                                 "SELECT worker_id, time_unix_micros FROM "
                                                 "worker_failures ORDER BY time_unix_micros"));
  while (true) {
    LASP_ASSIGN_OR_RETURN(const bool row, failures.Step());
    if (!row) {
      break;
    }
    PutWorkerFailure& failure = contents->worker_failures.emplace_back();
    failure.worker_id = failures.Text();
    failure.time = absl::FromUnixMicros(failures.Integer());
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
  LASP_ASSIGN_OR_RETURN(
      contents->generation_floor,
      database_.QueryInteger("SELECT value FROM meta WHERE key = 'generation_floor'"));
  LASP_ASSIGN_OR_RETURN(
      const int64_t adopts,
      database_.QueryInteger("SELECT value FROM meta WHERE key = 'adopts_checkpoints'"));
  contents->adopts_checkpoints = adopts != 0;
  return absl::OkStatus();
}

}  // namespace lasp::server
