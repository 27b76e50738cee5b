#include "worker/engine/updated_ranges.h"

#include <algorithm>

namespace lasp::worker {

std::vector<UpdatedRange> UpdatedRanges(const std::vector<ParameterRange>& alike,
                                        const std::vector<OwnedRange>& owned) {
  std::vector<UpdatedRange> updated;
  for (const OwnedRange& range : owned) {
    for (const ParameterRange& part : alike) {
      const int64_t begin = std::max(part.begin, range.share.begin);
      const int64_t count =
          std::min(part.begin + part.count, range.share.begin + range.share.count) - begin;
      if (count > 0) {
        const int64_t offset = begin - range.share.begin;
        updated.push_back({.begin = range.share.local + offset,
                           .first_element = begin,
                           .weight = range.weight.Columns(offset, count),
                           .gradient = range.gradient.Columns(offset, count),
                           .decays = part.decays});
      }
    }
  }
  return updated;
}

}  // namespace lasp::worker
