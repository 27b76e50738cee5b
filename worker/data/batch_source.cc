#include "worker/data/batch_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

int64_t CountGlobalBatches(const v1::TrainingSpec& spec, int64_t sample_count, DataSplit split) {
  const int64_t batch = spec.global_batch_size();
  if (split == DataSplit::kTrain) {
    return sample_count / batch;
  }
  return std::min<int64_t>(spec.eval_batches(), (sample_count + batch - 1) / batch);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchSource>> BatchSource::Open(
    const v1::TrainingSpec& spec, const std::vector<std::string>& path_roots,
    const DataCoordinates& coordinates, DataSplit split) {
  const auto& paths =
      split == DataSplit::kTrain ? spec.data().train_paths() : spec.data().eval_paths();
  LASP_ASSIGN_OR_RETURN(std::unique_ptr<Corpus> corpus,
                        Corpus::Open({paths.begin(), paths.end()}, spec.data().format(),
                                     spec.model().vocab_size(), path_roots));
  if (corpus->token_count() <= spec.data().sequence_length()) {
    return absl::InvalidArgumentError(absl::StrCat(
        split == DataSplit::kTrain ? "spec.data.train_paths" : "spec.data.eval_paths", " hold ",
        corpus->token_count(), " tokens, fewer than sequence_length + 1 = ",
        spec.data().sequence_length() + 1, ": add files or choose a shorter sequence_length"));
  }
  return std::unique_ptr<BatchSource>(new BatchSource(std::move(corpus), spec, coordinates, split));
}

BatchSource::BatchSource(std::unique_ptr<Corpus> corpus, const v1::TrainingSpec& spec,
                         const DataCoordinates& coordinates, DataSplit split)
    : corpus_(std::move(corpus)),
      coordinates_(coordinates),
      split_(split),
      sequence_length_(spec.data().sequence_length()),
      global_batch_size_(spec.global_batch_size()),
      micro_batch_size_(spec.micro_batch_size()),
      sample_count_((corpus_->token_count() - 1) / sequence_length_),
      micro_batches_per_step_(global_batch_size_ / (coordinates.dp_size * micro_batch_size_)),
      global_batch_count_(CountGlobalBatches(spec, sample_count_, split)),
      order_(sample_count_, spec.seed()) {}

absl::StatusOr<Batch> BatchSource::Read(int64_t step, int64_t micro_batch_index,
                                        const MacroChunks& chunks, int64_t chunk) const {
  if (step < 1 || micro_batch_index < 0 || micro_batch_index >= micro_batches_per_step_) {
    return absl::OutOfRangeError(absl::StrCat("micro-batch ", micro_batch_index, " of step ", step,
                                              ": a step has ", micro_batches_per_step_));
  }
  const int64_t begin = chunks.SliceBegin(chunk, coordinates_.sp_rank);
  const int64_t slice = chunks.SliceTokens(chunk, coordinates_.sp_rank);
  Batch batch;
  batch.sequences = micro_batch_size_;
  batch.tokens_per_rank = slice;
  batch.tokens.resize(static_cast<size_t>(micro_batch_size_ * slice));
  batch.labels.assign(batch.tokens.size(), kNoLabel);
  if (slice == 0) {
    return batch;
  }
  const int64_t first =
      FirstGlobalIndex(step, micro_batch_index, global_batch_size_, micro_batch_size_,
                       coordinates_.dp_rank, coordinates_.dp_size);
  // One more than the slice: the label of its last token.
  std::vector<int32_t> stream(static_cast<size_t>(slice + 1));
  for (int64_t i = 0; i < micro_batch_size_; ++i) {
    const int64_t index = first + i;
    if (split_ == DataSplit::kEval && index >= sample_count_) {
      // Past the end of the pass: the tokens stay 0 and count for nothing.
      continue;
    }
    const int64_t sample = split_ == DataSplit::kTrain ? order_.SampleAt(index) : index;
    LASP_RETURN_IF_ERROR(
        corpus_->Read(sample * sequence_length_ + begin, slice + 1, stream.data()));
    std::copy_n(stream.begin(), slice, batch.tokens.begin() + i * slice);
    std::copy_n(stream.begin() + 1, slice, batch.labels.begin() + i * slice);
    batch.label_count += slice;
  }
  return batch;
}

}  // namespace lasp::worker
