// The coordinator without its wire: everything the services are built on, made and ended in order.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "proto/rpc/clock.h"
#include "server/backup_folder.h"
#include "server/checkpoint_catalog.h"
#include "server/checkpoint_worker.h"
#include "server/core_observer.h"
#include "server/core_options.h"
#include "server/event_log.h"
#include "server/job_catalog.h"
#include "server/job_controller.h"
#include "server/job_store.h"
#include "server/lease_table.h"
#include "server/log_remover.h"
#include "server/log_store.h"
#include "server/metrics_hub.h"
#include "server/refusal_log.h"
#include "server/watch_hub.h"
#include "server/worker_catalog.h"

namespace lasp::server {

// Thread-safe. End the gRPC servers first, then this.
class ServerCore {
 public:
  // Opens the store in options.data_dir, backed up first where an earlier release wrote it
  // (FAILED_PRECONDITION for one of a newer schema, DATA_LOSS for a damaged one), restores its jobs
  // and starts the controller. `clock` and `observer` (which may be null) must outlive it.
  static absl::StatusOr<std::unique_ptr<ServerCore>> Open(const CoreOptions& options,
                                                          const Clock* clock,
                                                          CoreObserver* observer);
  ~ServerCore();

  JobController& controller() { return *controller_; }

  const JobCatalog& jobs() const { return jobs_; }

  const WorkerCatalog& workers() const { return workers_; }

  WatchHub& watches() { return *watches_; }

  EventLog& events() { return *events_; }

  MetricsHub& metrics() { return *metrics_; }

  LogStore& logs() { return *logs_; }

  const CheckpointCatalog& checkpoints() const { return checkpoints_; }

  // Whether there is somewhere to keep them.
  bool keeps_checkpoints() const { return checkpoint_worker_ != nullptr; }

  // Where it does.
  const std::string& checkpoint_root() const { return checkpoint_worker_->folder().root(); }

  BackupFolder& backups() { return *backups_; }

  // Refusals for the audit log.
  RefusalLog& refusals() { return *refusals_; }

  // For transitions, the audit log and health.
  const JobStore& store() const { return *store_; }

 private:
  ServerCore() = default;

  std::unique_ptr<CoreObserver> silent_observer_;
  std::unique_ptr<BackupFolder> backups_;
  std::unique_ptr<JobStore> store_;
  JobCatalog jobs_;
  WorkerCatalog workers_;
  std::unique_ptr<WatchHub> watches_;
  std::unique_ptr<EventLog> events_;
  std::unique_ptr<MetricsHub> metrics_;
  std::unique_ptr<LogStore> logs_;
  std::unique_ptr<LogRemover> log_remover_;
  std::unique_ptr<LeaseTable> leases_;
  std::unique_ptr<RefusalLog> refusals_;
  CheckpointCatalog checkpoints_;
  std::unique_ptr<CheckpointWorker> checkpoint_worker_;
  std::unique_ptr<JobController> controller_;
};

}  // namespace lasp::server
