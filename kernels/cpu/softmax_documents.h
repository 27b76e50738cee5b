// Which keys queries of softmax attention see where documents are apart (SoftmaxDocuments).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/softmax_attention.h"

namespace lasp::kernels::cpu {

// The first key that each query may see: it begins its document, or is the first of all. What lies
// behind a later query is never less. Immutable; any thread.
class FirstKeys {
 public:
  FirstKeys(const SoftmaxAttentionShape& shape, const SoftmaxDocuments& documents)
      : queries_(shape.queries) {
    if (documents.marks == nullptr) {
      return;
    }
    first_.reserve(static_cast<size_t>(shape.batch * shape.queries));
    const int64_t first_query = documents.first_key + shape.offset;
    for (int64_t batch = 0; batch < shape.batch; ++batch) {
      const uint64_t* const marks = documents.marks + batch * documents.words;
      int64_t start = 0;
      for (int64_t token = 0; token < first_query + shape.queries; ++token) {
        start = (marks[token / 64] >> (token % 64) & 1) != 0 ? token : start;
        if (token >= first_query) {
          first_.push_back(std::max<int64_t>(start - documents.first_key, 0));
        }
      }
    }
  }

  int64_t Of(int64_t batch, int64_t query) const {
    return first_.empty() ? 0 : first_[static_cast<size_t>(batch * queries_ + query)];
  }

 private:
  int64_t queries_;
  std::vector<int64_t> first_;  // [batch, queries]; empty: each sees them from the first on
};

}  // namespace lasp::kernels::cpu
