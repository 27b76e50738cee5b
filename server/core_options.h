// Every limit and interval of the coordinator's core in one place, so that tests can shrink them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace lasp::server {

struct CoreOptions {
  // Holds `store.sqlite` and `logs/`. Must exist.
  std::string data_dir;
  // A SQLite VFS other than the default, for tests of failing disks.
  std::string store_vfs;

  // --- the worker plane ---
  absl::Duration heartbeat_interval = absl::Seconds(2);
  // An agent not heard of for this long is lost: three heartbeats are missed, and there is a second
  // for a late one.
  absl::Duration lease_duration = absl::Seconds(7);
  absl::Duration sweep_interval = absl::Milliseconds(200);
  // After a restart of the coordinator, how long ranks may take to register again. At least three
  // leases are given.
  absl::Duration reconnect_grace = absl::Seconds(30);
  // How long after a Hello the exit of a rank that it does not list may come in.
  absl::Duration missing_rank_grace = absl::Seconds(3);
  // From the assignments until every rank has said where it listens.
  absl::Duration presence_deadline = absl::Seconds(60);
  // From there until every rank is ready: mesh, data and parameters.
  absl::Duration readiness_deadline = absl::Seconds(120);
  // A rank that only says that a peer has failed it is believed after this long; until then the
  // peer itself may tell the cause.
  absl::Duration cause_grace = absl::Milliseconds(500);
  // From the first rank that is done until the last one.
  absl::Duration finish_deadline = absl::Seconds(60);
  // What a drained rank is given to end its step before it is killed.
  absl::Duration drain_grace = absl::Seconds(120);
  // What ranks have to leave their state in memory.
  absl::Duration leave_grace = absl::Seconds(30);
  // A Stop that has not shown an effect is sent again after this long.
  absl::Duration stop_repeat_interval = absl::Seconds(5);

  // --- recovery ---
  // The first restart comes at once; the second after this long, doubling up to the maximum.
  absl::Duration restart_backoff = absl::Seconds(1);
  absl::Duration max_restart_backoff = absl::Seconds(60);

  // A worker on which ranks have failed so often, within the window, in a way that speaks against
  // the host is in quarantine: used where nothing else has room. 0: none is.
  int quarantine_failures = 3;
  absl::Duration quarantine_window = absl::Hours(24);

  // --- what users see ---
  // A job's progress is published at most this often.
  absl::Duration progress_interval = absl::Seconds(1);
  absl::Duration bookmark_interval = absl::Seconds(30);
  absl::Duration request_id_lifetime = absl::Hours(24);
  // Events that are held for those who list and watch them.
  int event_history = 10'000;
  // How many jobs at the head of the queue have their message kept up to date.
  int explained_queue_length = 100;

  // --- checkpoints ---
  // Empty: jobs write none, and start again from their first step.
  std::string checkpoint_root;

  // --- backups of the store ---
  // Empty for `backups` in data_dir.
  std::string backup_dir;
  int max_backups = 7;

  // --- retention ---
  absl::Duration retain_finished = absl::Hours(24 * 30);
  absl::Duration retention_interval = absl::Minutes(1);
  int64_t max_tombstones = 10'000;
  // Of the audit log: how long, and how many changes at most; of refusals a tenth.
  absl::Duration retain_audit = absl::Hours(24 * 365);
  int64_t max_audit_records = 1'000'000;
  // A job keeps about this many steps: all of them up to here, beyond a thinned series.
  int64_t max_steps_per_job = 10'000;
  int64_t max_log_bytes_per_rank = int64_t{64} << 20;
  int64_t log_segment_bytes = int64_t{8} << 20;
  // Of the logs of all ranks; looked at every retention_interval, the oldest go first.
  int64_t max_log_bytes = int64_t{64} << 30;

  // --- bounds ---
  // Jobs of one project that may be QUEUED; beyond it RESOURCE_EXHAUSTED, TOO_MANY_QUEUED_JOBS.
  int64_t max_queued_jobs = 10'000;
  // Commands of users that wait for the controller; beyond it RESOURCE_EXHAUSTED.
  size_t max_queued_commands = 4'096;
  // Messages of agents that wait for the controller, in bytes on the wire; beyond it no stream is
  // read on.
  size_t max_queued_agent_bytes = size_t{32} << 20;
  // Transactions that wait for the disk; beyond it the controller takes no new work.
  size_t max_pending_transactions = 8'192;
};

}  // namespace lasp::server
