// `lasp submit`, `lasp update` and `lasp checkpoints` in the table of commands: what takes a job's
// fields.
#pragma once

#include "client/command_tree.h"

namespace lasp::client {

CommandSpec SubmitCommand();
CommandSpec UpdateCommand();
CommandSpec CheckpointsCommand();

}  // namespace lasp::client
