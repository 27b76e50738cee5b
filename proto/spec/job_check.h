// All that the coordinator asks of a job before it stores it, and what a client may ask beforehand.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp {

// Writes the defaults of the job's spec out, then checks display_name, labels, the spec and, where
// the spec's data section is sound, its files. OK, or an error with every violation in a BadRequest
// and an ErrorInfo:
//   INVALID_ARGUMENT, reason INVALID_SPEC: fields (and perhaps files) are wrong;
//   NOT_FOUND, PERMISSION_DENIED, DATA_LOSS, INVALID_ARGUMENT, reason INVALID_DATA: only files are
//   wrong, all of them in this way (INVALID_ARGUMENT where they differ).
// Blocks on the file system: not for a thread that must not wait. Thread-safe.
absl::Status NormalizeAndCheckJob(lasp::v1::TrainingJob* job,
                                  const std::vector<std::string>& path_roots);

}  // namespace lasp
