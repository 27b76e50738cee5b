// Where the documents of a corpus start.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/data/corpus.h"

namespace lasp::worker {

// Thread-safe.
class DocumentStarts {
 public:
  virtual ~DocumentStarts() = default;

  // The tokens of the stream in [begin, end) at which a document starts, ascending, into `starts`;
  // begin >= 1. Errors as Corpus::Read and Corpus::FindIndexedDocuments.
  virtual absl::Status Find(int64_t begin, int64_t end, std::vector<int64_t>* starts) const = 0;
};

// `corpus` must outlive the results. A document starts behind every `end_token`, or where the
// corpus's indices say so.
std::unique_ptr<DocumentStarts> CreateStartsBehind(const Corpus* corpus, int64_t end_token);
std::unique_ptr<DocumentStarts> CreateIndexedStarts(const Corpus* corpus);

}  // namespace lasp::worker
