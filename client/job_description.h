// All about one job, for `lasp describe`.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "client/terminal.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// What it is, why it waits or failed, how far it came, where its ranks run, what happened to it,
// and its spec.
std::string DescribeJob(const lasp::v1::TrainingJob& job, absl::Time now, const Terminal& terminal);

}  // namespace lasp::client
