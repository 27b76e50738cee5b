#include "server/server_core.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "server/core_parts.h"
#include "server/log_trimmer.h"
#include "server/sqlite_job_store.h"
#include "server/sqlite_schema.h"

namespace lasp::server {
namespace {

// Logs of jobs that no longer exist: a crash came between a job's deletion and that of its files.
void RemoveOrphanLogs(const std::string& directory, const JobCatalog& jobs, LogRemover* remover) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string uid = entry.path().filename().string();
    if (jobs.FindByUid(uid) == nullptr) {
      LASP_LOG(kInfo, "removes the logs of a job that is gone",
               {{"directory", entry.path().string()}});
      remover->Remove(uid);
    }
  }
}

// The way back, should the new schema be regretted.
absl::Status BackUpOlderStore(const std::string& path, BackupFolder* backups) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::OkStatus();
  }
  SchemaState state;
  {
    LASP_ASSIGN_OR_RETURN(SqliteDatabase database,
                          SqliteDatabase::Open(path, "", SqliteDatabase::Mode::kReadOnly));
    LASP_ASSIGN_OR_RETURN(state, ReadSchemaState(&database));
  }
  if (state.version == 0 || state.version > kSchemaVersion || state.current()) {
    return absl::OkStatus();
  }
  LASP_LOG(kInfo, "the store is of an earlier release: it is backed up, then brought up to date",
           {{"path", path},
            {"schema", absl::StrCat(state.version, ".", state.additions)},
            {"to", absl::StrCat(kSchemaVersion, ".", kSchemaAdditions)}});
  return backups->Create("before-upgrade").status();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerCore>> ServerCore::Open(const CoreOptions& options,
                                                             const Clock* clock,
                                                             CoreObserver* observer) {
  auto core = std::unique_ptr<ServerCore>(new ServerCore());
  if (observer == nullptr) {
    core->silent_observer_ = std::make_unique<CoreObserver>();
    observer = core->silent_observer_.get();
  }
  SqliteJobStore::Options store_options;
  store_options.path = absl::StrCat(options.data_dir, "/store.sqlite");
  store_options.vfs = options.store_vfs;
  store_options.max_steps_per_job = options.max_steps_per_job;
  core->backups_ = std::make_unique<BackupFolder>(
      BackupFolder::Options{.folder = options.backup_dir.empty()
                                          ? absl::StrCat(options.data_dir, "/backups")
                                          : options.backup_dir,
                            .store_path = store_options.path,
                            .max_backups = options.max_backups,
                            .wanted = !options.backup_dir.empty()},
      clock);
  LASP_RETURN_IF_ERROR(BackUpOlderStore(store_options.path, core->backups_.get()));
  LASP_ASSIGN_OR_RETURN(core->store_, SqliteJobStore::Open(store_options, observer));
  core->watches_ = std::make_unique<WatchHub>(&core->jobs_, core->store_->uuid(), clock,
                                              options.bookmark_interval);
  core->events_ = std::make_unique<EventLog>(static_cast<size_t>(options.event_history));
  core->metrics_ = std::make_unique<MetricsHub>(core->store_.get());
  const std::string log_directory = absl::StrCat(options.data_dir, "/logs");
  core->logs_ = std::make_unique<LogStore>(log_directory, options.max_log_bytes_per_rank,
                                           options.log_segment_bytes);
  core->log_remover_ = std::make_unique<LogRemover>(
      [logs = core->logs_.get()](const std::string& uid) { logs->DeleteJob(uid); },
      [logs = core->logs_.get(), log_directory, max_bytes = options.max_log_bytes] {
        TrimLogs(log_directory, max_bytes, logs);
      });
  core->leases_ = std::make_unique<LeaseTable>(clock, options.lease_duration);
  core->refusals_ = std::make_unique<RefusalLog>(clock);
  if (!options.checkpoint_root.empty()) {
    core->checkpoint_worker_ = std::make_unique<CheckpointWorker>(options.checkpoint_root);
    LASP_RETURN_IF_ERROR(core->checkpoint_worker_->folder().Check());
  }
  LASP_ASSIGN_OR_RETURN(
      core->controller_,
      JobController::Start(options, {.clock = clock,
                                     .store = core->store_.get(),
                                     .jobs = &core->jobs_,
                                     .workers = &core->workers_,
                                     .watches = core->watches_.get(),
                                     .events = core->events_.get(),
                                     .metrics = core->metrics_.get(),
                                     .logs = core->logs_.get(),
                                     .log_remover = core->log_remover_.get(),
                                     .leases = core->leases_.get(),
                                     .refusals = core->refusals_.get(),
                                     .checkpoints = &core->checkpoints_,
                                     .checkpoint_disk = core->checkpoint_worker_.get(),
                                     .observer = observer}));
  RemoveOrphanLogs(log_directory, core->jobs_, core->log_remover_.get());
  return core;
}

ServerCore::~ServerCore() {
  // The controller uses everything else; the store's thread uses nothing but itself.
  controller_ = nullptr;
  store_ = nullptr;
}

}  // namespace lasp::server
