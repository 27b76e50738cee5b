#include "worker/engine/strategies.h"

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// Large enough for the links, small enough that the first is under way long before the backward
// pass ends.
constexpr int64_t kBucketBytes = 128 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceParallel>> CreateSequenceParallel(
    const lasp::v1::SequenceParallelSpec& spec, Backend* backend, Communicator* sp) {
  switch (spec.method()) {
    case lasp::v1::SequenceParallelSpec::METHOD_UNSPECIFIED:
    case lasp::v1::SequenceParallelSpec::METHOD_LASP:
      return CreateLasp(backend, sp);
    default:
      return absl::UnimplementedError(
          absl::StrCat("spec.parallelism.sequence_parallel.method ",
                       lasp::v1::SequenceParallelSpec::Method_Name(spec.method()),
                       " is not in this build: use LASP"));
  }
}

absl::StatusOr<std::unique_ptr<DataParallel>> CreateDataParallel(
    const lasp::v1::DataParallelSpec& spec, Communicator* world, Tensor gradients) {
  switch (spec.method()) {
    case lasp::v1::DataParallelSpec::METHOD_UNSPECIFIED:
    case lasp::v1::DataParallelSpec::METHOD_DDP:
      return CreateDdp(world, gradients, kBucketBytes / SizeOf(gradients.dtype));
    default:
      return absl::UnimplementedError(
          absl::StrCat("spec.parallelism.data_parallel.method ",
                       lasp::v1::DataParallelSpec::Method_Name(spec.method()),
                       " is not in this build: use DDP"));
  }
}

}  // namespace lasp::worker
