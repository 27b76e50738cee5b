// What a spec may say, judged by its numbers alone: no file is looked at (see data_check.h).
#pragma once

#include <vector>

#include "lasp/v1/training_spec.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// Every violation of a spec whose defaults are written out (spec_defaults.h): single fields in
// their order in training_spec.proto, then what only several fields together show (and only where
// each of them is sound by itself). Paths are as the user writes them (`spec.model.heads`), and
// each description says what is wrong and how to mend it. Thread-safe.
std::vector<FieldViolation> ValidateSpec(const lasp::v1::TrainingSpec& spec);

}  // namespace lasp
