// What ranks own apart, on each of them whole.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

// Where the elements of an owned range lie in the flat order of the whole model: shares with the
// range's `local`.
using PlacesOf = std::function<std::vector<TensorShare>(const TensorShare&)>;

// Elements [begin, begin + whole.count()) of that order into `whole`, bit for bit. `part`: of an
// owned range, [1, its count] and of the type of `whole`. All ranks call it.
absl::Status GatherOwned(DataParallel& parallel, Backend& backend, const PlacesOf& places,
                         const std::function<Tensor(const OwnedRange&)>& part, int64_t begin,
                         Tensor whole);

}  // namespace lasp::worker
