// What a job waits for, in words and numbers.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// Lines `what  value`, as the scheduler has decided; empty for a job that does not wait or of which
// the coordinator does not say more than its message.
std::string DescribeWait(const lasp::v1::TrainingJob& job, absl::Time now);

}  // namespace lasp::client
