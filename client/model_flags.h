// `lasp sample` and `lasp evaluate` in the table of commands.
#pragma once

#include "client/command_tree.h"

namespace lasp::client {

CommandSpec SampleCommand();
CommandSpec EvaluateCommand();

}  // namespace lasp::client
