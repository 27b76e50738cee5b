// From why a rank ends to the exit code that tells its agent what to do about it.
#pragma once

#include "absl/status/status.h"

namespace lasp::worker {

// proto/rpc/rank_exit_code.h: what another attempt would meet again is a wrong configuration; a
// lack of memory, a device that fails (INTERNAL) and SuspectHostError speak against this host; and
// everything else, a damaged checkpoint too, since there may be an older one, is worth another
// attempt.
int ExitCodeOf(const absl::Status& status);

// The same error, which speaks against this host whatever its code: reason SUSPECT_HOST.
absl::Status SuspectHostError(const absl::Status& status);

}  // namespace lasp::worker
