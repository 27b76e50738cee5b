// How the core answers.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "server/job_view.h"
#include "server/worker_catalog.h"

namespace lasp::server {

using JobCallback = std::function<void(absl::StatusOr<JobViewPtr>)>;
using WorkerCallback = std::function<void(absl::StatusOr<WorkerViewPtr>)>;
using CheckpointCallback = std::function<void(absl::StatusOr<lasp::v1::Checkpoint>)>;
using DoneCallback = std::function<void(absl::Status)>;

}  // namespace lasp::server
