// From why a rank ends to the exit code that tells its agent what to do about it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace lasp::worker {

// proto/rpc/rank_exit_code.h: what another attempt would meet again is a wrong configuration; a
// lack of memory, a device that fails (INTERNAL) and SuspectHostError speak against this host; and
// everything else, a damaged checkpoint too, since there may be an older one, is worth another
// attempt.
int ExitCodeOf(const absl::Status& status);

// The same error, which speaks against this host whatever its code: reason SUSPECT_HOST.
absl::Status SuspectHostError(const absl::Status& status);

// A step after which the job's spec does not let training go on.
struct BadStep {
  int64_t step = 0;
  bool finite = false;  // an outlier
  double loss = 0;
  double gradient_norm = 0;
  bool roll_back = false;  // otherwise the job is to end
};

// Reason NON_FINITE_STEP or OUTLIER_STEP with the `step`: ABORTED, worth another attempt, where it
// is to be rolled back; otherwise the job is not to be run again.
absl::Status BadStepError(const BadStep& bad);

}  // namespace lasp::worker
