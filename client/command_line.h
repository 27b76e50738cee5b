// From words to a command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/command_tree.h"

namespace lasp::client {

// `arguments` without the program's name. Reads LASP_SERVER and LASP_PROJECT; flags win.
// INVALID_ARGUMENT, with the nearest command or flag and a hint, where something is not known. An
// empty command means that help was asked for, or nothing.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

}  // namespace lasp::client
