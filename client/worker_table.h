// Workers and their GPUs as tables.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "client/output_table.h"
#include "lasp/v1/worker.pb.h"

namespace lasp::client {

// One row a worker; a column for GPUs only where a worker has some.
Table WorkerTable(const std::vector<lasp::v1::Worker>& workers, bool wide, absl::Time now);

// One row a GPU; empty where there is none.
Table GpuTable(const std::vector<lasp::v1::Worker>& workers);

}  // namespace lasp::client
