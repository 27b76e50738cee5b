// What a model is given at a time.
#pragma once

#include <cstdint>

#include "worker/device/tensor.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// This rank's slice of a micro-batch: kInt32 [sequences * tokens, 1] each.
struct TokenBatch {
  Tensor ids;
  Tensor labels;
  // Of all ranks; nothing said: each has as many tokens.
  SequenceSlices slices = {};
  // Of each sequence's first token here, in the sequence; documents inside it do not begin anew.
  int64_t first_position = 0;
  // Where documents start, in all slices.
  DocumentMarks documents = {};
};

}  // namespace lasp::worker
