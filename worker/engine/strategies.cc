#include "worker/engine/strategies.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/spec/sequence_parallel_support.h"

namespace lasp::worker {
namespace {

// Large enough for the links, small enough that the first is under way long before the backward
// pass ends.
constexpr int64_t kBucketBytes = 128 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceParallel>> CreateSequenceParallel(
    const lasp::v1::TrainingSpec& spec, Backend* backend, Communicator* sp) {
  using Spec = lasp::v1::SequenceParallelSpec;
  const Spec& parallel = spec.parallelism().sequence_parallel();
  if (const std::string reason = ReasonAgainstSize(parallel, spec.model()); !reason.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.parallelism.sequence_parallel.size ", reason));
  }
  std::unique_ptr<SequenceParallel> made;
  switch (parallel.method()) {
    case Spec::METHOD_UNSPECIFIED:
    case Spec::METHOD_LASP:
      return CreateLasp(backend, sp);
    case Spec::METHOD_LASP2:
      return CreateLasp2(backend, sp);
    case Spec::METHOD_ALL_SCAN:
      return CreateAllScan(backend, sp);
    case Spec::METHOD_ULYSSES:
      return CreateUlysses(backend, sp);
    case Spec::METHOD_RING_ATTENTION:
      made = CreateRingAttention(backend, sp);
      break;
    case Spec::METHOD_MEGATRON_SP:
      made = CreateMegatronSp(backend, sp);
      break;
    default:
      break;
  }
  if (made == nullptr) {
    return absl::UnimplementedError(absl::StrCat("spec.parallelism.sequence_parallel.method ",
                                                 Spec::Method_Name(parallel.method()),
                                                 " is not in this build: use LASP"));
  }
  return made;
}

absl::StatusOr<std::unique_ptr<DataParallel>> CreateDataParallel(
    const lasp::v1::DataParallelSpec& spec, const DataParallelOptions& options, Arena& arena) {
  using lasp::v1::DataParallelSpec;
  switch (spec.method()) {
    case DataParallelSpec::METHOD_UNSPECIFIED:
    case DataParallelSpec::METHOD_DDP:
      return CreateDdp(options, kBucketBytes / SizeOf(options.backend->accumulation_type()), arena);
    case DataParallelSpec::METHOD_LEGACY_DDP:
      return CreateDdp(options, std::numeric_limits<int64_t>::max(), arena);
    case DataParallelSpec::METHOD_ZERO1:
      return CreateZero(options, {}, arena);
    case DataParallelSpec::METHOD_ZERO2:
      return CreateZero(options, {.shards_gradients = true}, arena);
    case DataParallelSpec::METHOD_ZERO3:
    case DataParallelSpec::METHOD_FSDP:
      return CreateZero(options, {.shards_gradients = true, .shards_weights = true}, arena);
    default:
      return absl::UnimplementedError(absl::StrCat("spec.parallelism.data_parallel.method ",
                                                   DataParallelSpec::Method_Name(spec.method()),
                                                   " is not in this build: use DDP"));
  }
}

int TensorRanks(const lasp::v1::ParallelismSpec& spec) {
  return spec.sequence_parallel().method() == lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP
             ? spec.sequence_parallel().size()
             : 1;
}

bool GroupsShard(const lasp::v1::ParallelismSpec& spec) {
  return spec.data_parallel().shard_group() == lasp::v1::DataParallelSpec::SHARD_GROUP_SP ||
         TensorRanks(spec) > 1;
}

bool Streams(const lasp::v1::TrainingSpec& spec) {
  return spec.memory().activations() == lasp::v1::MemorySpec::ACTIVATIONS_STREAM;
}

ActivationMemory::Plan PlanOf(const lasp::v1::MemorySpec& spec, int64_t chunks) {
  using lasp::v1::MemorySpec;
  ActivationMemory::Plan plan{.chunks = chunks};
  switch (spec.activations()) {
    case MemorySpec::ACTIVATIONS_RECOMPUTE:
      plan.recomputation = spec.recompute() == MemorySpec::RECOMPUTE_SELECTIVE
                               ? Recomputation::kCheapest
                               : Recomputation::kBlock;
      break;
    case MemorySpec::ACTIVATIONS_OFFLOAD:
      plan.recomputation = Recomputation::kBlock;
      plan.offloads = true;
      break;
    case MemorySpec::ACTIVATIONS_STREAM:
      plan.streams = true;
      break;
    default:
      break;
  }
  return plan;
}

}  // namespace lasp::worker
