// The command line of lasp-server.
#pragma once

#include "absl/status/statusor.h"
#include "proto/rpc/log.h"
#include "server/server.h"
#include "server/store_restore.h"

namespace lasp::server {

struct CommandLine {
  ServerOptions options;
  LogLevel log_level = LogLevel::kInfo;
  // Instead of serving, where it names a backup.
  RestoreRequest restore;
};

// Reads the flags. Prints and exits 0 on --help and --version. INVALID_ARGUMENT that names the flag
// when one is unknown or its value is not of its kind. Call once, first in main.
absl::StatusOr<CommandLine> ParseCommandLineFlags(int argc, char** argv);

}  // namespace lasp::server
