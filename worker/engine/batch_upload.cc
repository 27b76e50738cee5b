#include "worker/engine/batch_upload.h"

namespace lasp::worker {

BatchUpload::BatchUpload(const Options& options, const MacroChunks& chunks, Arena& arena)
    : options_(options), chunks_(chunks) {
  const auto take = [&](int64_t rows, int64_t columns) {
    return arena.Take(MemoryUse::kWorkspace, DType::kInt32, rows, columns);
  };
  const int64_t rows = options.sequences * chunks.slice_tokens();
  ids_ = take(rows, 1);
  labels_ = take(rows, 1);
  if (options.packs) {
    document_marks_ = take(1, 2 * MarksOf(0).words());
  }
}

DocumentMarksLayout BatchUpload::MarksOf(int64_t chunk) const {
  return {.sequences = options_.sequences,
          .ranks = options_.sp_size,
          .slices = chunks_.SlicesOf(chunk)};
}

TokenBatch BatchUpload::Place(int64_t rows) const {
  return {.ids = ids_.Rows(0, rows), .labels = labels_.Rows(0, rows)};
}

TokenBatch BatchUpload::Upload(const Batch& batch, int64_t chunk) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  TokenBatch slice = Place(rows);
  slice.slices = chunks_.SlicesOf(chunk);
  slice.first_position = chunks_.SliceBegin(chunk, options_.sp_rank);
  if (rows > 0) {
    options_.backend->CopyFromHost(batch.tokens.data(), slice.ids);
    options_.backend->CopyFromHost(batch.labels.data(), slice.labels);
  }
  if (!batch.document_marks.empty()) {
    const DocumentMarksLayout layout = MarksOf(chunk);
    const Tensor marks = document_marks_.Columns(0, 2 * layout.words());
    options_.backend->CopyFromHost(batch.document_marks.data(), marks);
    slice.documents = DocumentMarks(marks, layout, options_.sp_rank);
  }
  return slice;
}

}  // namespace lasp::worker
