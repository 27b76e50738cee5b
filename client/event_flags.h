// `lasp events` in the table of commands.
#pragma once

#include "client/command_tree.h"

namespace lasp::client {

CommandSpec EventsCommand();

}  // namespace lasp::client
