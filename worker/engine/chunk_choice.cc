#include "worker/engine/chunk_choice.h"

#include <algorithm>
#include <vector>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// The largest number of `step`s, at most `most`, that fits; 0 where none does.
int64_t MostSteps(int64_t step, int64_t most, int64_t bytes,
                  const std::function<int64_t(int64_t tokens)>& bytes_for) {
  int64_t fits = 0;
  int64_t too_many = most + 1;
  while (too_many - fits > 1) {
    const int64_t middle = (fits + too_many) / 2;
    (bytes_for(middle * step) <= bytes ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace

int64_t MostSliceTokens(int64_t bytes, const std::function<int64_t(int64_t tokens)>& bytes_for) {
  constexpr int64_t kCoarse = 1024;
  constexpr int64_t kFine = 64;
  if (const int64_t steps = MostSteps(kCoarse, kMostSliceTokens / kCoarse, bytes, bytes_for);
      steps > 0) {
    return steps * kCoarse;
  }
  return std::max<int64_t>(1, MostSteps(kFine, kCoarse / kFine - 1, bytes, bytes_for)) * kFine;
}

int64_t UsableBytes(int64_t free_bytes) {
  constexpr int64_t kLibraries = int64_t{2} << 30;
  return std::max<int64_t>(0, free_bytes - free_bytes / 32 - kLibraries);
}

absl::StatusOr<int64_t> LeastOf(int64_t value, Backend& backend, Communicator& world) {
  if (world.size() == 1) {
    return value;
  }
  std::vector<int32_t> values(static_cast<size_t>(world.size()));
  LASP_ASSIGN_OR_RETURN(const auto memory,
                        backend.Allocate((world.size() + 1) * SizeOf(DType::kInt32)));
  const Tensor all{memory->data(), DType::kInt32, 1, world.size() + 1, world.size() + 1};
  const auto own = static_cast<int32_t>(value);
  backend.CopyFromHost(&own, all.Columns(world.size(), 1));
  const Tensor gathered = all.Columns(0, world.size()).Reshape(world.size(), 1);
  Operation gather = world.AllGather(all.Columns(world.size(), 1).Reshape(1, 1), gathered);
  LASP_RETURN_IF_ERROR(gather.Wait());
  backend.CopyToHost(gathered, values.data());
  // The device's wait also ends where communication is broken off.
  LASP_RETURN_IF_ERROR(gather.Wait());
  return *std::min_element(values.begin(), values.end());
}

}  // namespace lasp::worker
