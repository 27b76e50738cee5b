// Refusals that pass: the same call may succeed a little later. Each carries a RetryInfo.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::server {

absl::Status TryAgainLater(absl::StatusCode code, absl::string_view message,
                           absl::string_view reason, absl::Duration delay);

// RESOURCE_EXHAUSTED with reason OVERLOADED: more waits than the coordinator will hold.
absl::Status Overloaded();

// UNAVAILABLE with reason SHUTTING_DOWN.
absl::Status ShuttingDown();

}  // namespace lasp::server
