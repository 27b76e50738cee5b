// The names of what there is, for completion: jobs, workers, projects, contexts.
#pragma once

#include <string>
#include <vector>

namespace lasp::client {

// The command that completion scripts call and nobody else: `lasp __names KIND WORD...`, with the
// words of the line so far, whose flags say which coordinator and project.
inline constexpr char kNamesCommand[] = "__names";

// Prints a name a line. Asks the coordinator for jobs, workers and projects, and prints nothing
// where it does not answer soon, or where anything else is wrong. Names that a shell could take for
// more than names are left out.
void PrintNames(const std::vector<std::string>& arguments);

}  // namespace lasp::client
