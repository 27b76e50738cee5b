// One run of `lasp`.
#pragma once

#include <string>
#include <vector>

namespace lasp::client {

// Parses, does what is asked, reports errors on stderr; gives the exit code.
int RunCommandLine(const std::vector<std::string>& arguments);

}  // namespace lasp::client
