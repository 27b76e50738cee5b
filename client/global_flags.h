// The flags that every command takes.
#pragma once

#include <vector>

#include "client/command_tree.h"

namespace lasp::client {

std::vector<FlagSpec> MakeGlobalFlags();

}  // namespace lasp::client
