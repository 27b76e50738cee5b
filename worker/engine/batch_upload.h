// Where a rank's tokens lie on the device, and how they come there.
#pragma once

#include <cstdint>

#include "worker/data/batch.h"
#include "worker/data/macro_chunks.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/token_batch.h"
#include "worker/parallel/document_marks.h"

namespace lasp::worker {

// Not thread-safe.
class BatchUpload {
 public:
  struct Options {
    Backend* backend = nullptr;  // outlives it
    int64_t sequences = 0;       // of a micro-batch
    int sp_rank = 0;
    int sp_size = 1;
    bool packs = false;  // whether the documents of a sequence are apart
  };

  // Room for a macro-chunk of `chunks`.
  BatchUpload(const Options& options, const MacroChunks& chunks, Arena& arena);

  // This rank's slice of macro-chunk `chunk`, in the place of the one before.
  TokenBatch Upload(const Batch& batch, int64_t chunk);

  // Whatever lies there, of so many rows.
  TokenBatch Place(int64_t rows) const;

 private:
  // Of packed documents in macro-chunk `chunk`.
  DocumentMarksLayout MarksOf(int64_t chunk) const;

  const Options options_;
  const MacroChunks chunks_;
  Tensor ids_;
  Tensor labels_;
  Tensor document_marks_;  // kInt32 [1, those of a micro-batch]; empty where documents are joined
};

}  // namespace lasp::worker
