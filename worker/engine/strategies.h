// From the spec's choices to the implementations behind the engine's seams.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/device/backend.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// UNIMPLEMENTED names a method that this build does not have.
absl::StatusOr<std::unique_ptr<SequenceParallel>> CreateSequenceParallel(
    const lasp::v1::SequenceParallelSpec& spec, Backend* backend, Communicator* sp);
absl::StatusOr<std::unique_ptr<DataParallel>> CreateDataParallel(
    const lasp::v1::DataParallelSpec& spec, Communicator* world, Tensor gradients);

}  // namespace lasp::worker
