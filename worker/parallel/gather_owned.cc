#include "worker/parallel/gather_owned.h"

#include <algorithm>

namespace lasp::worker {

absl::Status GatherOwned(DataParallel& parallel, Backend& backend, const PlacesOf& places,
                         const std::function<Tensor(const OwnedRange&)>& part, int64_t begin,
                         Tensor whole) {
  // A sum of one number and zeros is that number.
  const Tensor flat = whole.Reshape(1, whole.count());
  backend.Fill(0, flat);
  for (const OwnedRange& range : parallel.counted()) {
    for (const TensorShare& share : places(range.share)) {
      const int64_t from = std::max(begin, share.begin);
      const int64_t count = std::min(begin + flat.count(), share.begin + share.count) - from;
      if (count > 0) {
        const int64_t within = share.local - range.share.local + from - share.begin;
        backend.Convert(part(range).Columns(within, count).Reshape(1, count),
                        flat.Columns(from - begin, count).Reshape(1, count));
      }
    }
  }
  return parallel.SumOverOwners(flat);
}

}  // namespace lasp::worker
