// What the gRPC services share.
#pragma once

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "server/access_control.h"
#include "server/job_fields.h"
#include "server/open_streams.h"
#include "server/server_core.h"
#include "server/task_pool.h"

namespace lasp::server {

// All outlive the services.
struct ServiceParts {
  ServerCore* core = nullptr;
  const Clock* clock = nullptr;
  OpenStreams* streams = nullptr;
  // For what reads files or the store.
  TaskPool* blocking_pool = nullptr;
  // For answers to what the core has done: sending one takes far longer than deciding it, and the
  // controller's thread, which learns first that it may be sent, has others to decide for.
  TaskPool* answer_pool = nullptr;
  // For the logs that agents send, so that no user's slow file holds an agent's stream up.
  TaskPool* log_pool = nullptr;
  // For backups, which may take minutes.
  TaskPool* backup_pool = nullptr;
  // For exports of checkpoints, whose disk may be slow.
  TaskPool* export_pool = nullptr;
  // For watches, which read memory only.
  TaskPool* watch_pool = nullptr;
  // Null where everybody may do everything.
  const AccessControl* access = nullptr;
  LabelLimits labels = {};
  // How long a stream's write may wait for its reader.
  absl::Duration slow_reader_limit = absl::Seconds(60);
};

}  // namespace lasp::server
