// All that the coordinator asks of a spec before it stores it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// Writes the spec's defaults out, then checks its fields and, where its data section is sound, its
// files. `earlier` are violations of the same request found before, so that all are told at once.
// OK, or an error with every violation in a BadRequest and an ErrorInfo:
//   INVALID_ARGUMENT, reason INVALID_SPEC: fields (and perhaps files) are wrong;
//   NOT_FOUND, PERMISSION_DENIED, DATA_LOSS, INVALID_ARGUMENT, reason INVALID_DATA: only files are
//   wrong, all of them in this way (INVALID_ARGUMENT where they differ).
// Blocks on the file system: not for a thread that must not wait. Thread-safe.
absl::Status NormalizeAndCheckSpec(lasp::v1::TrainingSpec* spec,
                                   const std::vector<std::string>& path_roots,
                                   std::vector<FieldViolation> earlier = {});

}  // namespace lasp
