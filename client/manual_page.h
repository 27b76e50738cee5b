// Manual pages (man(7)), made from the table of commands and from what daemons print for --help.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/command_tree.h"

namespace lasp::client {

// What stands in every page's head and foot.
struct ManualEdition {
  // For example 0.1.0.
  std::string version;
  // For example 2026-11-22.
  std::string date;
};

// lasp(1).
std::string ProgramPage(const ManualEdition& edition);
// lasp-COMMAND(1).
std::string CommandPage(const CommandSpec& command, const ManualEdition& edition);
// PROGRAM(8), of the text that `PROGRAM --help` prints. INVALID_ARGUMENT for a text of another
// form.
absl::StatusOr<std::string> DaemonPage(const std::string& program, const std::string& help,
                                       const ManualEdition& edition);

}  // namespace lasp::client
