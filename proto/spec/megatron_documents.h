// Where the documents of a Megatron corpus start, looked up in its index.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "proto/spec/corpus_file.h"

namespace lasp {

// Appends the tokens in [begin, end) of `file`'s at which documents start, ascending, each `origin`
// more. A document without tokens starts where the next one does, which counts once. Reads in time
// of the logarithm of the documents, and constant memory. The file must have an index. DATA_LOSS
// where the index has shrunk or contradicts itself since it was opened. Thread-safe.
absl::Status FindMegatronDocuments(const CorpusFile& file, int64_t begin, int64_t end,
                                   int64_t origin, std::vector<int64_t>* starts);

}  // namespace lasp
