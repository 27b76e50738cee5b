// What this build is.
#pragma once

namespace lasp {

// For example "0.1.0".
const char* Version();
// The commit it was built from, or "unknown".
const char* Revision();
// What agent and coordinator speak; the coordinator accepts this version only until there are two.
inline constexpr int kWorkerProtocolVersion = 1;

}  // namespace lasp
