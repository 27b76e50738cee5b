// Where each query's document starts among the keys of a slice, for softmax attention: as
// SoftmaxDocuments of kernels/softmax_attention.h, a number a query.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/softmax_attention.h"

namespace lasp::kernels::cuda {

struct DocumentStartsArgs {
  int64_t batch = 0;
  int64_t queries = 0;
  int64_t offset = 0;          // of the first query from the first key
  SoftmaxDocuments documents;  // marks are not null
  int32_t* starts = nullptr;   // [batch, queries]: of the first key, 0; negative before it
};

// A sequence's first token starts a document whether it is marked or not. Reads the marks back to
// the document's start, 64 tokens a word, once for 256 queries.
cudaError_t FindDocumentStarts(const DocumentStartsArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
