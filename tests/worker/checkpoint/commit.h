// What the coordinator makes of the shards of a step.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

// Writes the manifest of the checkpoint that `shards`, one a rank and all of one step, make in
// `folder` beneath `root`. Fails as a coordinator would: where one was not written, or they do not
// make a whole.
absl::StatusOr<lasp::v1::CheckpointReference> CommitCheckpoint(
    const std::string& root, const std::string& folder, const lasp::v1::TrainingSpec& spec,
    const std::vector<lasp::v1::ShardWritten>& shards);

}  // namespace lasp::worker
