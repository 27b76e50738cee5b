// Whether shards hold every tensor once.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "lasp/v1/checkpoint.pb.h"

namespace lasp {

// 4 for F32, which is what checkpoints hold. INVALID_ARGUMENT for others.
absl::StatusOr<int64_t> ElementBytes(absl::string_view dtype);

// Elements of a tensor. INVALID_ARGUMENT for a dimension below 1 and for more than 2^53.
absl::StatusOr<int64_t> ElementCount(const lasp::v1::CheckpointTensor& tensor);

// DATA_LOSS unless the extents of all shards cover every element of every tensor exactly once and
// lie inside their files, no two of one file over each other. Names what is wrong.
absl::Status CheckCover(
    const google::protobuf::RepeatedPtrField<lasp::v1::CheckpointTensor>& tensors,
    const google::protobuf::RepeatedPtrField<lasp::v1::CheckpointShard>& shards);

}  // namespace lasp
