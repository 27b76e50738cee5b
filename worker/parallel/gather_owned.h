// What ranks own apart, on each of them whole.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// Elements [begin, begin + whole.count()) of the flat order into `whole`, bit for bit. `part`: of
// an owned range, [1, its count] and of the type of `whole`. All ranks call it.
absl::Status GatherOwned(DataParallel& parallel, Backend& backend,
                         const std::function<Tensor(const OwnedRange&)>& part, int64_t begin,
                         Tensor whole);

}  // namespace lasp::worker
