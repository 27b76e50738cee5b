// Command lines of the daemons. Abseil ends a process with status 1 on a flag it does not know or
// cannot read, where wrong usage is status 2 here; so arguments are looked at before Abseil sees
// them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/log.h"

namespace lasp {

// How a program explains itself.
struct ProgramHelp {
  // For example lasp-worker.
  std::string program;
  // What it is, how to call it, its exit codes.
  std::string text;
  // The end of the path of the file that defines its flags.
  std::string flags_file;
};

// Reads the flags. Prints and ends the process with 0 on --help and --version. INVALID_ARGUMENT
// that names the flag where one is unknown or its value is not of its kind. Call once, first in
// main.
absl::Status ParseFlagArguments(int argc, char** argv, const ProgramHelp& help);

// INVALID_ARGUMENT "--flag: problem".
absl::Status FlagError(absl::string_view flag, absl::string_view problem);

// debug, info, warning or error.
absl::StatusOr<LogLevel> ParseLogLevel(const std::string& name);

// What a daemon prints on stdout once it serves: one JSON object keyed by flag.
std::string ServingLine(const std::vector<std::pair<std::string, std::string>>& values);

}  // namespace lasp
