#include "worker/data/batch_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "tests/proto/corpus_fixture.h"
#include "tests/proto/spec_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "worker/data/batch_prefetcher.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kLength = 24;
constexpr int64_t kSamples = 30;

// A corpus in which every token is its own position, so that a batch shows where it came from.
class BatchSourceTest : public ::testing::Test {
 protected:
  BatchSourceTest() {
    std::vector<int64_t> tokens(kSamples * kLength + 1);
    std::iota(tokens.begin(), tokens.end(), 0);
    temp_.Write("a.u16", lasp::testing::RawTokens<uint16_t>(tokens));
    spec_ = lasp::testing::SoundSpecWithDefaults();
    spec_.mutable_data()->set_train_paths(0, "a.u16");
    spec_.mutable_data()->add_eval_paths("a.u16");
    spec_.mutable_data()->set_format(v1::DataSpec::FORMAT_UINT16);
    spec_.mutable_data()->set_sequence_length(kLength);
    spec_.mutable_model()->set_vocab_size(65'536);
    spec_.set_global_batch_size(12);
    spec_.set_seed(3);
  }

  std::unique_ptr<BatchSource> Open(const DataCoordinates& at,
                                    DataSplit split = DataSplit::kTrain) {
    auto source = BatchSource::Open(spec_, {temp_.path()}, at, split);
    LASP_EXPECT_OK(source);
    return source.ok() ? *std::move(source) : nullptr;
  }

  // The sequences (tokens, then labels) of one step in the order of the global batch, put together
  // from the slices of every rank of a shape.
  std::vector<std::vector<int32_t>> StepOf(int sp_size, int dp_size, int micro_batch,
                                           int64_t step) {
    spec_.set_micro_batch_size(micro_batch);
    std::vector<std::vector<int32_t>> sequences;
    const int64_t micro_batches = spec_.global_batch_size() / (int64_t{dp_size} * micro_batch);
    for (int64_t m = 0; m < micro_batches; ++m) {
      for (int d = 0; d < dp_size; ++d) {
        std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(micro_batch));
        std::vector<std::vector<int32_t>> labels(static_cast<size_t>(micro_batch));
        for (int p = 0; p < sp_size; ++p) {
          const auto source = Open({p, sp_size, d, dp_size});
          EXPECT_EQ(source->micro_batches_per_step(), micro_batches);
          const auto batch = source->Read(step, m);
          LASP_EXPECT_OK(batch);
          EXPECT_EQ(batch->sequences, micro_batch);
          EXPECT_EQ(batch->tokens_per_rank, kLength / sp_size);
          EXPECT_EQ(batch->label_count, micro_batch * kLength / sp_size);
          for (int i = 0; i < micro_batch; ++i) {
            const auto at = i * batch->tokens_per_rank;
            const auto append = [&](const std::vector<int32_t>& from, std::vector<int32_t>* to) {
              to->insert(to->end(), from.begin() + at, from.begin() + at + batch->tokens_per_rank);
            };
            append(batch->tokens, &tokens[static_cast<size_t>(i)]);
            append(batch->labels, &labels[static_cast<size_t>(i)]);
          }
        }
        for (size_t i = 0; i < tokens.size(); ++i) {
          sequences.push_back(tokens[i]);
          sequences.back().insert(sequences.back().end(), labels[i].begin(), labels[i].end());
        }
      }
    }
    return sequences;
  }

  lasp::testing::TempDirectory temp_;
  v1::TrainingSpec spec_;
};

TEST_F(BatchSourceTest, EveryShapeTrainsOnTheSameSequencesInTheSameOrder) {
  for (const int64_t step : {1, 2, 3, 7}) {
    const auto expected = StepOf(1, 1, 1, step);
    ASSERT_EQ(expected.size(), 12u);
    for (const int sp_size : {1, 2, 3, 4, 8, 24}) {
      for (const int dp_size : {1, 2, 3, 4, 6, 12}) {
        for (const int micro_batch : {1, 2, 3}) {
          if (12 % (dp_size * micro_batch) == 0) {
            EXPECT_EQ(StepOf(sp_size, dp_size, micro_batch, step), expected)
                << "SP " << sp_size << " DP " << dp_size << " micro-batch " << micro_batch;
          }
        }
      }
    }
  }
}

TEST_F(BatchSourceTest, ASequenceIsContiguousAndItsLabelsAreShiftedByOne) {
  for (const std::vector<int32_t>& sequence : StepOf(4, 3, 2, 1)) {
    EXPECT_EQ(sequence[0] % kLength, 0);
    for (size_t i = 0; i < kLength; ++i) {
      EXPECT_EQ(sequence[i], sequence[0] + static_cast<int32_t>(i));
      EXPECT_EQ(sequence[kLength + i], sequence[i] + 1);
    }
  }
}

TEST_F(BatchSourceTest, EveryPassTakesEverySampleOnce) {
  // 30 samples, 12 a step: five steps are two passes, and the third step spans the border.
  std::vector<int32_t> samples;
  for (int64_t step = 1; step <= 5; ++step) {
    for (const auto& sequence : StepOf(2, 2, 1, step)) {
      samples.push_back(sequence[0] / static_cast<int32_t>(kLength));
    }
  }
  std::vector<int32_t> all(kSamples);
  std::iota(all.begin(), all.end(), 0);
  std::vector<int32_t> first(samples.begin(), samples.begin() + kSamples);
  std::vector<int32_t> second(samples.begin() + kSamples, samples.end());
  EXPECT_NE(first, second);
  EXPECT_NE(first, all);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, all);
  EXPECT_EQ(second, all);
}

TEST_F(BatchSourceTest, SeedsDecideTheOrder) {
  const auto first = StepOf(1, 1, 1, 1);
  spec_.set_seed(4);
  EXPECT_NE(StepOf(1, 1, 1, 1), first);
  spec_.set_seed(3);
  EXPECT_EQ(StepOf(1, 1, 1, 1), first);
}

TEST_F(BatchSourceTest, EvaluationReadsOnePassInOrder) {
  spec_.set_eval_batches(100);
  spec_.set_micro_batch_size(2);
  std::vector<int32_t> starts;
  int64_t labels = 0;
  for (int d = 0; d < 3; ++d) {
    const auto source = Open({0, 1, d, 3}, DataSplit::kEval);
    EXPECT_EQ(source->global_batch_count(), 3);
    for (int64_t step = 1; step <= 3; ++step) {
      for (int64_t m = 0; m < source->micro_batches_per_step(); ++m) {
        const auto batch = source->Read(step, m);
        LASP_ASSERT_OK(batch);
        labels += batch->label_count;
        for (int64_t i = 0; i < 2; ++i) {
          const auto at = static_cast<size_t>(i * kLength);
          if (batch->labels[at] != kNoLabel) {
            starts.push_back(batch->tokens[at]);
          } else {
            EXPECT_TRUE(std::all_of(batch->labels.begin() + i * kLength,
                                    batch->labels.begin() + (i + 1) * kLength,
                                    [](int32_t label) { return label == kNoLabel; }));
          }
        }
      }
    }
  }
  std::sort(starts.begin(), starts.end());
  ASSERT_EQ(starts.size(), static_cast<size_t>(kSamples));
  for (size_t i = 0; i < starts.size(); ++i) {
    EXPECT_EQ(starts[i], static_cast<int32_t>(i) * kLength);
  }
  EXPECT_EQ(labels, kSamples * kLength);
  const auto source = Open({}, DataSplit::kEval);
  EXPECT_EQ(source->Read(1, 0)->tokens[0], 0);
  spec_.set_eval_batches(2);
  EXPECT_EQ(Open({}, DataSplit::kEval)->global_batch_count(), 2);
}

TEST_F(BatchSourceTest, HeldOutDataSmallerThanABatchStillEvaluates) {
  spec_.set_global_batch_size(60);
  const auto source = Open({}, DataSplit::kEval);
  EXPECT_EQ(source->global_batch_count(), 1);
}

TEST_F(BatchSourceTest, TooFewTokensAreRefused) {
  spec_.mutable_data()->set_sequence_length(kSamples * kLength + 1);
  EXPECT_THAT(BatchSource::Open(spec_, {temp_.path()}, {}, DataSplit::kTrain),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("train_paths hold 721")));
  spec_.mutable_data()->set_sequence_length(kSamples * kLength);
  const auto source = Open({});
  EXPECT_EQ(source->sample_count(), 1);
  LASP_EXPECT_OK(source->Read(1, 0));
}

TEST_F(BatchSourceTest, MicroBatchesOutsideTheStepAreRefused) {
  const auto source = Open({});
  EXPECT_THAT(source->Read(0, 0), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("step 0")));
  EXPECT_THAT(source->Read(1, 12), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("has 12")));
}

TEST_F(BatchSourceTest, PrefetchingGivesWhatReadingGives) {
  spec_.set_micro_batch_size(2);
  const auto source = Open({1, 2, 1, 3});
  for (const int depth : {1, 2, 7}) {
    BatchPrefetcher prefetcher(source.get(), 3, 6, source->whole(), depth);
    for (int64_t step = 3; step <= 6; ++step) {
      for (int64_t m = 0; m < source->micro_batches_per_step(); ++m) {
        const auto batch = prefetcher.Next();
        LASP_ASSERT_OK(batch);
        EXPECT_EQ(batch->tokens, source->Read(step, m)->tokens);
        EXPECT_EQ(batch->labels, source->Read(step, m)->labels);
      }
    }
    EXPECT_THAT(prefetcher.Next(), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("last step")));
  }
}

TEST_F(BatchSourceTest, MacroChunksArePrefetchedForwardAndBack) {
  // Of 23 tokens on two ranks, 5 each at a time: two whole macro-chunks, and 3 tokens on the first.
  constexpr int64_t kShort = 23;
  spec_.mutable_data()->set_sequence_length(kShort);
  spec_.set_micro_batch_size(2);
  const MacroChunks chunks(kShort, 2, 5);
  ASSERT_EQ(chunks.count(), 3);
  const auto whole = Open({});
  for (const int sp_rank : {0, 1}) {
    const auto source = Open({sp_rank, 2, 0, 1});
    BatchPrefetcher prefetcher(source.get(), 1, 2, chunks);
    for (const int64_t step : {1, 2}) {
      for (int64_t m = 0; m < source->micro_batches_per_step(); ++m) {
        const Batch sequences = whole->Read(step, m).value();
        for (const int64_t chunk : {0, 1, 2, 1, 0}) {
          const auto batch = prefetcher.Next();
          LASP_ASSERT_OK(batch);
          const int64_t tokens = chunk < 2 ? 5 : 3 * (1 - sp_rank);
          EXPECT_EQ(batch->tokens_per_rank, tokens);
          ASSERT_EQ(batch->tokens.size(), static_cast<size_t>(2 * tokens));
          for (int64_t i = 0; i < 2 * tokens; ++i) {
            const int64_t at = i / tokens * kShort + chunk * 10 + int64_t{5} * sp_rank + i % tokens;
            EXPECT_EQ(batch->tokens[i], sequences.tokens[at]);
            EXPECT_EQ(batch->labels[i], sequences.labels[at]);
          }
        }
      }
    }
  }
}

TEST_F(BatchSourceTest, APrefetcherThatIsNotEmptiedEnds) {
  const auto source = Open({});
  const BatchPrefetcher prefetcher(source.get(), 1, 1'000'000, source->whole());
}

TEST_F(BatchSourceTest, AnErrorUnderThePrefetcherComesOutOnceReadyBatchesAreTaken) {
  const auto source = Open({});
  BatchPrefetcher prefetcher(source.get(), 1, 1'000'000, source->whole(), 2);
  LASP_ASSERT_OK(prefetcher.Next());
  ASSERT_EQ(truncate(temp_.Join("a.u16").c_str(), 100), 0);
  absl::Status status;
  for (int i = 0; i < 10 && status.ok(); ++i) {
    status = prefetcher.Next().status();
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("a.u16")));
  EXPECT_EQ(prefetcher.Next().status(), status);
}

}  // namespace
}  // namespace lasp::worker
