#include "client/exit_code.h"

namespace lasp::client {

int ExitCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition:
      return kExitConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return kExitUnavailable;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

const char* ExitCodeHelp() {
  return R"(Exit codes of lasp:

    0  done; with --wait and watch: the job SUCCEEDED
    1  with --wait and watch: the job FAILED or was CANCELLED; or an unforeseen error
    2  the command line or the job file is wrong
    3  no such job, worker or project
    4  not allowed
    5  the job's state does not allow it, or the name is taken
    6  no answer from the coordinator, or not in time: try again later
  130  interrupted (Ctrl-C); a job that was watched goes on. Likewise 143 after
       SIGTERM, and 129 after SIGHUP: the terminal or the connection is gone
)";
}

}  // namespace lasp::client
