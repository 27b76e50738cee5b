// `lasp plot` in the table of commands.
#pragma once

#include "client/command_tree.h"

namespace lasp::client {

CommandSpec PlotCommand();

}  // namespace lasp::client
