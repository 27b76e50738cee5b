// From why a rank ends to the exit code that tells its agent what to do about it.
#pragma once

#include "absl/status/status.h"

namespace lasp::worker {

// proto/rpc/rank_exit_code.h: what another attempt would meet again is a wrong configuration, a
// lack of memory speaks against this host, and everything else is worth another attempt.
int ExitCodeOf(const absl::Status& status);

}  // namespace lasp::worker
