// The coordinator's early answer about a spec's data: whether every file is there, is what its
// format says, and holds enough tokens. The ranks check again when they open the data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// What one field of a spec's data is refused for.
struct DataViolation {
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  FieldViolation violation;
};

// Every violation of `spec.data.train_paths[i]` and `spec.data.eval_paths[i]`. `path_roots` as in
// path_lookup.h. Opens each file once and reads a bounded part of it. Thread-safe.
std::vector<DataViolation> CheckData(const lasp::v1::TrainingSpec& spec,
                                     const std::vector<std::string>& path_roots);

}  // namespace lasp
