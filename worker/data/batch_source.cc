#include "worker/data/batch_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/data/mark_documents.h"

namespace lasp::worker {
namespace {

int64_t CountGlobalBatches(const v1::TrainingSpec& spec, int64_t sample_count, DataSplit split) {
  const int64_t batch = spec.global_batch_size();
  if (split == DataSplit::kTrain) {
    return sample_count / batch;
  }
  return std::min<int64_t>(spec.eval_batches(), (sample_count + batch - 1) / batch);
}

bool IsPacked(const v1::DataSpec& data) {
  return data.documents() == v1::DataSpec::DOCUMENTS_PACKED;
}

bool IsIndexed(const v1::DataSpec& data) { return data.format() == v1::DataSpec::FORMAT_MEGATRON; }

std::unique_ptr<DocumentStarts> DocumentsOf(const v1::DataSpec& data, const Corpus* corpus) {
  if (!IsPacked(data)) {
    return nullptr;
  }
  return IsIndexed(data) ? CreateIndexedStarts(corpus)
                         : CreateStartsBehind(corpus, data.document_end_token());
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchSource>> BatchSource::Open(
    const v1::TrainingSpec& spec, const std::vector<std::string>& path_roots,
    const DataCoordinates& coordinates, DataSplit split) {
  const auto& paths =
      split == DataSplit::kTrain ? spec.data().train_paths() : spec.data().eval_paths();
  LASP_ASSIGN_OR_RETURN(
      std::unique_ptr<Corpus> corpus,
      Corpus::Open({paths.begin(), paths.end()}, spec.data().format(), spec.model().vocab_size(),
                   path_roots, IsPacked(spec.data()) && IsIndexed(spec.data())));
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
      documents_(DocumentsOf(spec.data(), corpus_.get())),
      coordinates_(coordinates),
      split_(split),
      sequence_length_(spec.data().sequence_length()),
      global_batch_size_(spec.global_batch_size()),
      micro_batch_size_(spec.micro_batch_size()),
      sample_count_((corpus_->token_count() - 1) / sequence_length_),
      micro_batches_per_step_(global_batch_size_ / (coordinates.dp_size * micro_batch_size_)),
      global_batch_count_(CountGlobalBatches(spec, sample_count_, split)),
      order_(sample_count_, spec.seed()) {}

std::optional<int64_t> BatchSource::SampleOf(int64_t step, int64_t micro_batch_index,
                                             int64_t sequence) const {
  const int64_t index =
      FirstGlobalIndex(step, micro_batch_index, global_batch_size_, micro_batch_size_,
                       coordinates_.dp_rank, coordinates_.dp_size) +
      sequence;
  if (split_ == DataSplit::kTrain) {
    return order_.SampleAt(index);
  }
  return index < sample_count_ ? std::optional<int64_t>(index) : std::nullopt;
}

absl::Status BatchSource::FindStarts(int64_t sample, int64_t begin, int64_t tokens,
                                     std::vector<int64_t>* starts) const {
  const int64_t origin = sample * sequence_length_ + begin;
  // A sample begins with states of zeros, whatever its first token is.
  LASP_RETURN_IF_ERROR(
      documents_->Find(origin + (begin == 0 ? 1 : 0), origin + tokens + 1, starts));
  for (int64_t& start : *starts) {
    start -= origin;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> BatchSource::StepLabelCount(int64_t step, const MacroChunks& chunks) const {
  int64_t count = 0;
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < micro_batches_per_step_ * micro_batch_size_; ++i) {
    const std::optional<int64_t> sample =
        SampleOf(step, i / micro_batch_size_, i % micro_batch_size_);
    for (int64_t chunk = 0; sample.has_value() && chunk < chunks.count(); ++chunk) {
      const int64_t begin = chunks.SliceBegin(chunk, coordinates_.sp_rank);
      const int64_t slice = chunks.SliceTokens(chunk, coordinates_.sp_rank);
      count += slice;
      if (documents_ != nullptr && slice > 0) {
        LASP_RETURN_IF_ERROR(FindStarts(*sample, begin, slice, &starts));
        // A token before a start predicts nothing. That before the slice is another rank's.
        count -= std::count_if(starts.begin(), starts.end(), [](int64_t at) { return at > 0; });
      }
    }
  }
  return count;
}

absl::StatusOr<Batch> BatchSource::Read(int64_t step, int64_t micro_batch_index,
                                        const MacroChunks& chunks, int64_t chunk) const {
  if (step < 1 || micro_batch_index < 0 || micro_batch_index >= micro_batches_per_step_) {
    return absl::OutOfRangeError(absl::StrCat("micro-batch ", micro_batch_index, " of step ", step,
                                              ": a step has ", micro_batches_per_step_));
  }
  const SequenceSlices slices = chunks.SlicesOf(chunk);
  const int64_t chunk_begin = chunks.SliceBegin(chunk, 0);
  const int64_t begin = slices.Begin(coordinates_.sp_rank);
  const int64_t slice = slices.Of(coordinates_.sp_rank);
  Batch batch;
  batch.sequences = micro_batch_size_;
  batch.tokens_per_rank = slice;
  batch.tokens.resize(static_cast<size_t>(micro_batch_size_ * slice));
  batch.labels.assign(batch.tokens.size(), kNoLabel);
  // One more than the slice: the label of its last token.
  std::vector<int32_t> stream(static_cast<size_t>(slice + 1));
  std::vector<std::vector<int64_t>> starts(static_cast<size_t>(micro_batch_size_));
  for (int64_t i = 0; i < micro_batch_size_; ++i) {
    const std::optional<int64_t> sample = SampleOf(step, micro_batch_index, i);
    if (!sample.has_value()) {
      // Past the end of the pass: the tokens stay 0 and count for nothing.
      continue;
    }
    if (slice > 0) {
      LASP_RETURN_IF_ERROR(corpus_->Read(*sample * sequence_length_ + chunk_begin + begin,
                                         slice + 1, stream.data()));
      std::copy_n(stream.begin(), slice, batch.tokens.begin() + i * slice);
      std::copy_n(stream.begin() + 1, slice, batch.labels.begin() + i * slice);
      batch.label_count += slice;
    }
    if (documents_ != nullptr) {
      // Of all ranks' slices: each may have to know of the others' (DocumentMarks).
      std::vector<int64_t>& own = starts[static_cast<size_t>(i)];
      LASP_RETURN_IF_ERROR(FindStarts(*sample, chunk_begin, slices.total, &own));
      for (const int64_t start : own) {
        if (start > begin && start <= begin + slice) {
          batch.labels[static_cast<size_t>(i * slice + start - begin - 1)] = kNoLabel;
          --batch.label_count;
        }
      }
      if (!own.empty() && own.back() == slices.total) {
        own.pop_back();
      }
    }
  }
  batch.document_marks = MarkDocuments(
      {.sequences = micro_batch_size_, .ranks = coordinates_.sp_size, .slices = slices}, starts);
  return batch;
}

}  // namespace lasp::worker
