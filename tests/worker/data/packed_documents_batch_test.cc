// Batches of packed documents: which tokens start one, as every rank of an SP group is told, and
// which predict nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/proto/corpus_fixture.h"
#include "tests/proto/spec_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "worker/data/batch_prefetcher.h"
#include "worker/data/batch_source.h"
#include "worker/parallel/document_marks.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kLength = 150;
constexpr int64_t kSamples = 9;
constexpr int64_t kEndToken = 3;

// Whether a mark is set for a token in rows of so many.
bool Marked(const std::vector<uint64_t>& words, int64_t begin, int64_t row, int64_t tokens,
            int64_t token) {
  const int64_t word = begin + row * DocumentMarksLayout::WordsOf(tokens) + token / 64;
  return (words[static_cast<size_t>(word)] >> (token % 64) & 1) != 0;
}

class PackedDocumentsBatchTest : public ::testing::Test {
 protected:
  PackedDocumentsBatchTest() {
    std::mt19937 random(5);
    for (int64_t i = 0; i <= kSamples * kLength; ++i) {
      // Some documents of one token, and some longer than a sequence.
      const bool ends = i < 4 * kLength && random() % 12 == 0;
      tokens_.push_back(ends ? kEndToken : static_cast<int64_t>(10 + random() % 90));
    }
    spec_ = lasp::testing::SoundSpecWithDefaults();
    spec_.mutable_data()->set_sequence_length(kLength);
    spec_.mutable_data()->set_documents(v1::DataSpec::DOCUMENTS_PACKED);
    spec_.mutable_model()->set_vocab_size(100);
    spec_.set_global_batch_size(6);
    spec_.set_micro_batch_size(2);
    spec_.set_seed(3);
  }

  void UseEndToken() {
    temp_.Write("a.u16", lasp::testing::RawTokens<uint16_t>(tokens_));
    spec_.mutable_data()->set_format(v1::DataSpec::FORMAT_UINT16);
    spec_.mutable_data()->set_document_end_token(kEndToken);
    SetPaths({"a.u16"});
  }

  // In two files, and every document in sequences of at most 7 tokens.
  void UseIndex() {
    std::vector<std::vector<int64_t>> files(2);
    for (size_t i = 0; i < tokens_.size(); ++i) {
      files[i < tokens_.size() / 3 ? 0 : 1].push_back(tokens_[i]);
    }
    for (size_t file = 0; file < files.size(); ++file) {
      const std::vector<int64_t>& tokens = files[file];
      std::vector<int32_t> lengths;
      std::vector<int64_t> documents = {0};
      int32_t length = 0;
      for (size_t i = 0; i < tokens.size(); ++i) {
        ++length;
        const bool ends = tokens[i] == kEndToken || i + 1 == tokens.size();
        if (length == 7 || ends) {
          lengths.push_back(length);
          length = 0;
        }
        if (ends) {
          documents.push_back(static_cast<int64_t>(lengths.size()));
        }
      }
      // One without tokens, in the middle.
      documents.insert(documents.begin() + 1, documents[1]);
      lasp::testing::MegatronFixture index = lasp::testing::Megatron(lengths, 2, 8);
      index.documents = documents;
      temp_.Write(absl::StrCat(file, ".idx"), index.Index());
      temp_.Write(absl::StrCat(file, ".bin"), lasp::testing::RawTokens<uint16_t>(tokens));
    }
    // The second file begins a document.
    file_border_ = static_cast<int64_t>(tokens_.size() / 3);
    spec_.mutable_data()->set_format(v1::DataSpec::FORMAT_MEGATRON);
    SetPaths({"0", "1.bin"});
  }

  void SetPaths(const std::vector<std::string>& paths) {
    spec_.mutable_data()->clear_train_paths();
    spec_.mutable_data()->clear_eval_paths();
    for (const std::string& path : paths) {
      spec_.mutable_data()->add_train_paths(path);
      spec_.mutable_data()->add_eval_paths(path);
    }
  }

  bool StartsAt(int64_t position) const {
    return position == file_border_ || tokens_[static_cast<size_t>(position - 1)] == kEndToken;
  }

  std::unique_ptr<BatchSource> Open(int sp_rank, int sp_size, DataSplit split) const {
    auto source = BatchSource::Open(spec_, {temp_.path()}, {sp_rank, sp_size, 0, 1}, split);
    LASP_EXPECT_OK(source);
    return source.ok() ? *std::move(source) : nullptr;
  }

  // One sequence of a batch, whose first token is `origin` of the stream, against the tokens.
  void ExpectSequence(const Batch& batch, const DocumentMarksLayout& layout, int rank,
                      int64_t sequence, int64_t sample, int64_t chunk_begin) const {
    const SequenceSlices& slices = layout.slices;
    const int64_t origin = sample * kLength + chunk_begin;
    for (int64_t token = 0; token < slices.total; ++token) {
      const bool starts = chunk_begin + token > 0 && StartsAt(origin + token);
      const auto owner = static_cast<int>(token / slices.each);
      if (batch.document_marks.empty()) {
        ASSERT_FALSE(starts) << token;
        continue;
      }
      ASSERT_EQ(Marked(batch.document_marks, layout.BeginOfWhole(), sequence, slices.total, token),
                starts)
          << token;
      ASSERT_EQ(Marked(batch.document_marks, layout.BeginOf(owner), sequence, slices.Of(owner),
                       token - slices.Begin(owner)),
                starts)
          << token;
    }
    for (int64_t i = 0; i < slices.Of(rank); ++i) {
      const int64_t position = origin + slices.Begin(rank) + i;
      const auto at = static_cast<size_t>(sequence * slices.Of(rank) + i);
      ASSERT_EQ(batch.tokens[at], tokens_[static_cast<size_t>(position)]);
      ASSERT_EQ(batch.labels[at],
                StartsAt(position + 1) ? kNoLabel : tokens_[static_cast<size_t>(position + 1)]);
    }
  }

  // Every batch of two evaluations of the held-out data, which are in the order of the stream.
  void ExpectBatches(int sp_size, int64_t slice) const {
    const MacroChunks chunks(kLength, sp_size, slice);
    for (int rank = 0; rank < sp_size; ++rank) {
      const auto source = Open(rank, sp_size, DataSplit::kEval);
      for (int64_t index = 0; index < kSamples - 1; index += 2) {
        for (int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
          const auto batch = source->Read(index / 6 + 1, index % 6 / 2, chunks, chunk);
          LASP_ASSERT_OK(batch);
          EXPECT_EQ(batch->label_count,
                    static_cast<int64_t>(batch->labels.size()) -
                        std::count(batch->labels.begin(), batch->labels.end(), kNoLabel));
          const DocumentMarksLayout layout{
              .sequences = 2, .ranks = sp_size, .slices = chunks.SlicesOf(chunk)};
          for (const int64_t i : {0, 1}) {
            ExpectSequence(*batch, layout, rank, i, index + i, chunks.SliceBegin(chunk, 0));
          }
        }
      }
    }
  }

  lasp::testing::TempDirectory temp_;
  v1::TrainingSpec spec_;
  std::vector<int64_t> tokens_;
  int64_t file_border_ = -1;
};

TEST_F(PackedDocumentsBatchTest, EveryRankKnowsWhereDocumentsStart) {
  UseEndToken();
  for (const int sp_size : {1, 2, 3, 5}) {
    ExpectBatches(sp_size, kLength / sp_size);
  }
}

TEST_F(PackedDocumentsBatchTest, MacroChunksHaveTheirOwn) {
  UseEndToken();
  for (const int64_t slice : {1, 7, 64, 70}) {
    ExpectBatches(2, slice);
  }
}

TEST_F(PackedDocumentsBatchTest, AnIndexSaysWhereDocumentsStart) {
  UseIndex();
  ExpectBatches(1, kLength);
  ExpectBatches(3, 20);
}

TEST_F(PackedDocumentsBatchTest, AnIndexThatShrinksUnderARunIsAnErrorWithItsName) {
  UseIndex();
  const auto source = Open(0, 1, DataSplit::kEval);
  temp_.Write("1.idx", "gone");
  EXPECT_THAT(source->Read(2, 0), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("1.idx")));
}

TEST_F(PackedDocumentsBatchTest, AStepsFirstBatchSaysHowManyLabelsItHas) {
  UseEndToken();
  for (const bool packed : {true, false}) {
    spec_.mutable_data()->set_documents(packed ? v1::DataSpec::DOCUMENTS_PACKED
                                               : v1::DataSpec::DOCUMENTS_JOINED);
    const MacroChunks chunks(kLength, 2, 40);
    for (const int rank : {0, 1}) {
      const auto source = Open(rank, 2, DataSplit::kTrain);
      BatchPrefetcher prefetcher(source.get(), 2, 3, chunks);
      for (const int64_t step : {2, 3}) {
        int64_t said = 0;
        int64_t counted = 0;
        for (int64_t micro = 0; micro < source->micro_batches_per_step(); ++micro) {
          for (int64_t pass = 0; pass < chunks.pass_count(); ++pass) {
            const auto batch = prefetcher.Next();
            LASP_ASSERT_OK(batch);
            said = micro == 0 && pass == 0 ? batch->step_label_count : said;
            // Forward, each macro-chunk once.
            counted += pass < chunks.count() ? batch->label_count : 0;
          }
        }
        EXPECT_EQ(said, counted) << "step " << step << " rank " << rank;
        EXPECT_GT(said, 0);
      }
    }
  }
}

}  // namespace
}  // namespace lasp::worker
