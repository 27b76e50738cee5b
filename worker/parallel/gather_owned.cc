#include "worker/parallel/gather_owned.h"

#include <algorithm>

namespace lasp::worker {

absl::Status GatherOwned(DataParallel& parallel, Backend& backend,
                         const std::function<Tensor(const OwnedRange&)>& part, int64_t begin,
                         Tensor whole) {
  // A sum of one number and zeros is that number.
  const Tensor flat = whole.Reshape(1, whole.count());
  backend.Fill(0, flat);
  for (const OwnedRange& range : parallel.owned()) {
    const int64_t from = std::max(begin, range.share.begin);
    const int64_t count =
        std::min(begin + flat.count(), range.share.begin + range.share.count) - from;
    if (count > 0) {
      backend.Convert(part(range).Columns(from - range.share.begin, count).Reshape(1, count),
                      flat.Columns(from - begin, count).Reshape(1, count));
    }
  }
  return parallel.SumOverOwners(flat);
}

}  // namespace lasp::worker
