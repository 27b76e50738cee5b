// From a spec to this rank's batches, for training and for evaluation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/training_spec.pb.h"
#include "worker/data/batch.h"
#include "worker/data/corpus.h"
#include "worker/data/document_starts.h"
#include "worker/data/macro_chunks.h"
#include "worker/data/sample_order.h"

namespace lasp::worker {

// A rank's place in the mesh, as far as data is concerned.
struct DataCoordinates {
  int sp_rank = 0;
  int sp_size = 1;
  int dp_rank = 0;
  int dp_size = 1;
};

enum class DataSplit {
  // data.train_paths, shuffled anew for each pass, without end.
  kTrain,
  // data.eval_paths in order, one pass; positions past its end carry kNoLabel.
  kEval,
};

// A sample is sequence_length + 1 tokens of the stream; sample n starts at token
// n * sequence_length, so that consecutive samples share one token and every token but the first is
// a label once, but for those that begin a document where documents are packed. Thread-safe.
class BatchSource {
 public:
  // `spec` with its defaults written out. Errors as Corpus::Open; INVALID_ARGUMENT where the split
  // holds fewer than sequence_length + 1 tokens.
  static absl::StatusOr<std::unique_ptr<BatchSource>> Open(
      const lasp::v1::TrainingSpec& spec, const std::vector<std::string>& path_roots,
      const DataCoordinates& coordinates, DataSplit split);

  // This rank's slice of a macro-chunk of `chunks`, of micro-batch `micro_batch_index` in
  // [0, micro_batches_per_step()) of `step`: for kTrain the training step, for kEval the global
  // batch, both from 1. Reads from the disk or the page cache (BatchPrefetcher reads ahead). Errors
  // as Corpus::Read.
  absl::StatusOr<Batch> Read(int64_t step, int64_t micro_batch_index, const MacroChunks& chunks,
                             int64_t chunk) const;

  // Of the whole sequences, whose length must be a multiple of the SP size.
  absl::StatusOr<Batch> Read(int64_t step, int64_t micro_batch_index) const {
    return Read(step, micro_batch_index, whole(), 0);
  }

  // Labels that count, of this rank's slices of all that a training step reads. Errors as
  // Corpus::Read.
  absl::StatusOr<int64_t> StepLabelCount(int64_t step, const MacroChunks& chunks) const;

  MacroChunks whole() const { return MacroChunks::One(sequence_length_, coordinates_.sp_size); }

  // global_batch_size / (dp_size * micro_batch_size): what one optimizer step accumulates.
  int64_t micro_batches_per_step() const { return micro_batches_per_step_; }

  // kEval: the global batches of one evaluation, min(spec.eval_batches, one pass), the last perhaps
  // partly empty. kTrain: the full global batches of one pass.
  int64_t global_batch_count() const { return global_batch_count_; }

  // Samples in one pass.
  int64_t sample_count() const { return sample_count_; }

 private:
  BatchSource(std::unique_ptr<Corpus> corpus, const lasp::v1::TrainingSpec& spec,
              const DataCoordinates& coordinates, DataSplit split);

  // The sample at a micro-batch's place; none past the end of a pass over held-out data.
  std::optional<int64_t> SampleOf(int64_t step, int64_t micro_batch_index, int64_t sequence) const;
  // Of a sample's tokens [begin, begin + tokens), counted from `begin`: where documents start, but
  // for a start of the sample itself; `tokens` too, where one starts behind them.
  absl::Status FindStarts(int64_t sample, int64_t begin, int64_t tokens,
                          std::vector<int64_t>* starts) const;

  const std::unique_ptr<Corpus> corpus_;
  const std::unique_ptr<DocumentStarts> documents_;  // null: documents are joined
  const DataCoordinates coordinates_;
  const DataSplit split_;
  const int64_t sequence_length_;
  const int64_t global_batch_size_;
  const int64_t micro_batch_size_;
  const int64_t sample_count_;
  const int64_t micro_batches_per_step_;
  const int64_t global_batch_count_;
  const SampleOrder order_;
};

}  // namespace lasp::worker
