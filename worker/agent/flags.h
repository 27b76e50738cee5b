// The command line of lasp-worker.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/log.h"
#include "proto/rpc/tls_identity.h"
#include "worker/agent/rank_log.h"
#include "worker/agent/slots.h"

namespace lasp::worker {

struct CommandLine {
  std::string server;
  TlsFiles tls;
  std::string worker_id;
  SlotOptions slots;
  std::string health_address;
  std::string metrics_address;
  int max_rank_series = 0;
  std::string rank_address;
  std::vector<std::string> path_roots;
  std::string checkpoint_root;
  // Where state is left in memory; empty: nowhere.
  std::string memory_root;
  std::string work_dir;
  std::string rank_binary;
  std::string dump_directory;
  absl::Duration drain_timeout;
  RankLogLimits log_limits;
  int64_t log_ship_bytes_per_second = 0;
  absl::Duration retain_logs;
  int64_t retain_log_bytes = 0;
  LogLevel log_level = LogLevel::kInfo;
};

// Reads the flags. Prints and ends the process with 0 on --help and --version. INVALID_ARGUMENT
// that names the flag otherwise. Call once, first in main.
absl::StatusOr<CommandLine> ReadCommandLine(int argc, char** argv);

}  // namespace lasp::worker
