// The folder that a spec's model.initial_weights names.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/interchange/model_folder.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// What `asked` says otherwise than the model that a folder holds, of the fields that are written
// there: paths beneath `spec.model`, each with both values.
std::vector<FieldViolation> ModelDifferences(const lasp::v1::ModelSpec& asked,
                                             const lasp::v1::ModelSpec& held);

// The weights for `model`, which names their folder and is valid, beneath the roots. Errors of
// ModelFolder::Open; INVALID_ARGUMENT where they are another model's, FAILED_PRECONDITION where
// their frequencies are not the fixed ones that the model has.
absl::StatusOr<ModelFolder> OpenInitialWeights(const lasp::v1::ModelSpec& model,
                                               const std::vector<std::string>& path_roots);

// The coordinator's early answer: OK where the spec names none; otherwise what OpenInitialWeights
// says, as a violation of the field (reason INVALID_DATA). Blocks on the file system.
absl::Status CheckInitialWeights(const lasp::v1::TrainingSpec& spec,
                                 const std::vector<std::string>& path_roots);

}  // namespace lasp
