// What the controller works on.
#pragma once

#include "proto/rpc/clock.h"
#include "server/checkpoint_catalog.h"
#include "server/checkpoint_task.h"
#include "server/core_observer.h"
#include "server/event_log.h"
#include "server/job_catalog.h"
#include "server/job_store.h"
#include "server/lease_table.h"
#include "server/log_remover.h"
#include "server/log_store.h"
#include "server/metrics_hub.h"
#include "server/refusal_log.h"
#include "server/watch_hub.h"
#include "server/worker_catalog.h"

namespace lasp::server {

struct CoreParts {
  const Clock* clock = nullptr;
  JobStore* store = nullptr;
  JobCatalog* jobs = nullptr;
  WorkerCatalog* workers = nullptr;
  WatchHub* watches = nullptr;
  EventLog* events = nullptr;
  MetricsHub* metrics = nullptr;
  LogStore* logs = nullptr;
  LogRemover* log_remover = nullptr;
  LeaseTable* leases = nullptr;
  RefusalLog* refusals = nullptr;
  CheckpointCatalog* checkpoints = nullptr;
  // Null: jobs write no checkpoints.
  CheckpointDisk* checkpoint_disk = nullptr;
  CoreObserver* observer = nullptr;
};

}  // namespace lasp::server
