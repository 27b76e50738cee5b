// Which jobs a sequence-parallel method computes; LASP computes all.
#pragma once

#include <cstdint>
#include <string>

#include "lasp/v1/training_spec.pb.h"

namespace lasp {

// Whether this build has the method.
bool IsAvailable(v1::SequenceParallelSpec::Method method);
// For an error: what there is to choose from.
inline constexpr char kAvailableSequenceParallelMethods[] =
    "LASP, LASP2, ALL_SCAN, RING_ATTENTION, ULYSSES or MEGATRON_SP";

// Why the method does not compute the model on so many ranks, of its field `size`, and what to
// choose; empty where it does. Sizes that are not positive are not judged.
std::string ReasonAgainstSize(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model);

// Of how many tokens a rank's slice of a sequence is a multiple where the method computes the model
// on several.
int64_t SliceMultiple(const v1::SequenceParallelSpec& sp, const v1::ModelSpec& model);

// Why the method does not go with shards of its SP groups, of spec.parallelism.data_parallel's
// field `shard_group`, and what to choose; empty where it does.
std::string ReasonAgainstShardGroup(v1::SequenceParallelSpec::Method method);

// Why sequences cannot go by in macro-chunks with the method, of spec.memory.activations STREAM,
// and what to choose; empty where they can.
std::string ReasonAgainstStreaming(v1::SequenceParallelSpec::Method method);

// Why the method does not keep the documents of a sequence apart in the model's layers, of
// spec.data.documents PACKED, and what to choose; empty where it does, or where there is no such
// method.
std::string ReasonAgainstPacking(v1::SequenceParallelSpec::Method method,
                                 const v1::ModelSpec& model);

}  // namespace lasp
