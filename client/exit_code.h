// The exit codes of `lasp`, a stable contract (`lasp help exit-codes`).
#pragma once

#include "absl/status/status.h"

namespace lasp::client {

inline constexpr int kExitOk = 0;
// The job failed or was cancelled (waiting commands), or something unforeseen went wrong.
inline constexpr int kExitFailed = 1;
// The command line or the job file is wrong.
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitDenied = 4;
// The job's state, or a name that is taken, does not allow it.
inline constexpr int kExitConflict = 5;
// No answer from the coordinator, or not in time.
inline constexpr int kExitUnavailable = 6;
// And the number of the signal that ended it.
inline constexpr int kExitOfSignal = 128;
inline constexpr int kExitInterrupted = kExitOfSignal + 2;

int ExitCode(absl::StatusCode code);

// What `lasp help exit-codes` prints.
const char* ExitCodeHelp();

}  // namespace lasp::client
