// All workers, page by page.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/connection.h"
#include "lasp/v1/worker.pb.h"

namespace lasp::client {

// `deadline`: of all pages together.
absl::StatusOr<std::vector<lasp::v1::Worker>> ListWorkers(Connection* connection,
                                                          absl::Time deadline);

}  // namespace lasp::client
