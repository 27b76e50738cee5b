// From documents' starts to the marks that attention reads.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/parallel/document_marks.h"

namespace lasp::worker {

// starts[i]: the tokens of sequence i, counted from the macro-chunk's first, at which documents
// start. [layout.words()]; nothing where none starts.
std::vector<uint64_t> MarkDocuments(const DocumentMarksLayout& layout,
                                    const std::vector<std::vector<int64_t>>& starts);

}  // namespace lasp::worker
