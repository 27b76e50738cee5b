// How many tokens of a sequence a rank takes at a time where the spec leaves it open.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Beyond this a macro-chunk fills any GPU, and more memory gains nothing.
inline constexpr int64_t kMostSliceTokens = 65'536;
// On CPUs: enough for full blocks and matrix products, little enough for their memory.
inline constexpr int64_t kCpuSliceTokens = 1024;

// The most tokens, at most kMostSliceTokens, with which `bytes_for` (which grows with them) is no
// more than `bytes`: a multiple of 1024, or of 64 where that is too many; 64 where nothing fits.
int64_t MostSliceTokens(int64_t bytes, const std::function<int64_t(int64_t tokens)>& bytes_for);

// What a plan may take of a device's free memory. The rest is for what libraries load later.
int64_t UsableBytes(int64_t free_bytes);

// The least of all ranks' `value`, which every rank calls it with. Errors of the communicator.
absl::StatusOr<int64_t> LeastOf(int64_t value, Backend& backend, Communicator& world);

}  // namespace lasp::worker
