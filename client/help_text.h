// Help, made from the table of commands.
#pragma once

#include <string>

#include "client/command_tree.h"

namespace lasp::client {

// `lasp --help`.
std::string ProgramHelp();
// `lasp COMMAND --help`.
std::string CommandHelp(const CommandSpec& command);

}  // namespace lasp::client
