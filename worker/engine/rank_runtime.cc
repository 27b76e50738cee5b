#include "worker/engine/rank_runtime.h"

#include "absl/strings/str_cat.h"

namespace lasp::worker {

std::string GenerationName(const lasp::v1::Fence& fence) {
  return absl::StrCat(fence.training_job(), "/", fence.uid(), "/", fence.generation());
}

}  // namespace lasp::worker
