// Completion scripts, made from the table of commands: commands, flags, values that are few, and,
// by asking `lasp __names`, names.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lasp::client {

// `shell` is bash, zsh or fish.
absl::StatusOr<std::string> CompletionScript(const std::string& shell);

}  // namespace lasp::client
