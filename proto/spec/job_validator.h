// What a job may say around its spec: the fields that an update may change too.
#pragma once

#include <vector>

#include "lasp/v1/training_job.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp {

// Every violation of display_name and labels.
std::vector<FieldViolation> ValidateJobFields(const lasp::v1::TrainingJob& job);

}  // namespace lasp
