// From the spec's choices to the implementations behind the engine's seams.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/device/backend.h"
#include "worker/engine/activation_memory.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// UNIMPLEMENTED names a method that this build does not have, or not on this device,
// INVALID_ARGUMENT a size that it cannot share the model out over.
// The second takes the memory of the parameters from `arena`.
absl::StatusOr<std::unique_ptr<SequenceParallel>> CreateSequenceParallel(
    const lasp::v1::TrainingSpec& spec, Backend* backend, Communicator* sp);
absl::StatusOr<std::unique_ptr<DataParallel>> CreateDataParallel(
    const lasp::v1::DataParallelSpec& spec, const DataParallelOptions& options, Arena& arena);

// Whether the ranks of an SP group hold parameters apart that its replicas have too: communicators
// among them are needed, apart from that of the sequences.
bool GroupsShard(const lasp::v1::ParallelismSpec& spec);

// The ranks that share out heads and the MLP's columns: tensor parallelism. 1: none.
int TensorRanks(const lasp::v1::ParallelismSpec& spec);

// Whether sequences go by in macro-chunks.
bool Streams(const lasp::v1::TrainingSpec& spec);

// For sequences in `chunks` macro-chunks. `spec` with its defaults written out, or as a coordinator
// that knew no plans sent it.
ActivationMemory::Plan PlanOf(const lasp::v1::MemorySpec& spec, int64_t chunks);

}  // namespace lasp::worker
