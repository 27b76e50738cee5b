// The recurrence against the whole sequence at once, as an independent forward in fp64 computes it.
#include "worker/inference/recurrent_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/status_matchers.h"
#include "tests/worker/inference/parameters_in_memory.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/model/reference_model.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;
// Two blocks of 64 and a part of a third.
constexpr int64_t kLength = 150;

struct Case {
  int64_t chunk = 0;
  bool learned_theta = false;
  bool linear_transformer = false;
};

class RecurrentModelTest : public ::testing::TestWithParam<Case> {
 protected:
  RecurrentModelTest() : backend_(CreateCpuBackend(DType::kFloat64, 1).value()) {}

  std::unique_ptr<RecurrentModel> Model(const MicroBatchShape& most) {
    return RecurrentModel::Create(config_, most, backend_.get(), ReaderOf(layout_, parameters_))
        .value();
  }

  // Positions [begin, begin + count) of all sequences.
  static std::vector<int32_t> Columns(const std::vector<int32_t>& whole, int64_t begin,
                                      int64_t count) {
    std::vector<int32_t> columns;
    for (int64_t sequence = 0; sequence < kSequences; ++sequence) {
      const auto first = whole.begin() + sequence * kLength + begin;
      columns.insert(columns.end(), first, first + count);
    }
    return columns;
  }

  const ModelConfig config_{.linear_transformer = GetParam().linear_transformer,
                            .layers = 3,
                            .hidden_size = 12,
                            .heads = 3,
                            .glu_size = 10,
                            .vocab_size = 11,
                            .learned_theta = GetParam().learned_theta};
  const ParameterLayout layout_{config_};
  const std::vector<double> parameters_ = RandomParameters(layout_, 0.4);
  const std::unique_ptr<Backend> backend_;
  const RandomSequences data_ = MakeSequences(kSequences, kLength, config_.vocab_size, 3);
};

TEST_P(RecurrentModelTest, GivesTheLogitsAndLossesOfTheWholeSequence) {
  const auto reference = ReferenceModel(config_, layout_, parameters_);
  const std::vector<double> expected =
      kernels::reference::TransNormerLogits(reference, kSequences, kLength, data_.ids);
  const double expected_loss =
      kernels::reference::TransNormerLoss(reference, kSequences, kLength, data_.ids, data_.labels);
  const int64_t chunk = GetParam().chunk;
  const auto model = Model({kSequences, chunk});
  // The second time is like the first: nothing is left of the sequences before.
  for (int time = 1; time <= 2; ++time) {
    model->Begin();
    for (int64_t begin = 0; begin < kLength; begin += chunk) {
      const int64_t count = std::min(chunk, kLength - begin);
      LASP_ASSERT_OK(model->Advance(Columns(data_.ids, begin, count)));
      LASP_ASSERT_OK(model->AddLoss(Columns(data_.labels, begin, count)));
      for (int64_t sequence = 0; sequence < kSequences; ++sequence) {
        std::vector<float> logits;
        LASP_ASSERT_OK(model->Logits(sequence, &logits));
        const double* const row =
            expected.data() + (sequence * kLength + begin + count - 1) * config_.vocab_size;
        ASSERT_EQ(std::ssize(logits), config_.vocab_size);
        for (size_t token = 0; token < logits.size(); ++token) {
          // As near as the fp32 in which they are given.
          ASSERT_NEAR(logits[token], row[token], 1e-6 * std::max(1.0, std::abs(row[token])))
              << "token " << begin + count - 1 << " of sequence " << sequence;
        }
      }
    }
    EXPECT_NEAR(model->LossSum().value() / (time * kSequences * kLength * expected_loss), 1, 1e-12);
  }
}

TEST_P(RecurrentModelTest, ItsMemoryIsThatOfAChunk) {
  const auto bytes = [&](int64_t chunk) { return Model({kSequences, chunk})->memory().total(); };
  EXPECT_LT(bytes(1), bytes(kLength));
}

INSTANTIATE_TEST_SUITE_P(Chunks, RecurrentModelTest,
                         ::testing::Values(Case{1, false}, Case{1, true}, Case{7, false},
                                           Case{7, true}, Case{64, false}, Case{64, true},
                                           Case{kLength, false}, Case{kLength, true},
                                           Case{1, false, true}, Case{7, false, true},
                                           Case{kLength, false, true}),
                         [](const ::testing::TestParamInfo<Case>& tested) {
                           return "Of" + std::to_string(tested.param.chunk) +
                                  (tested.param.linear_transformer ? "LinearTransformer"
                                   : tested.param.learned_theta    ? "Learned"
                                                                   : "Fixed");
                         });

TEST(RecurrentModelErrorsTest, RefusesLayersThatAreNoRecurrence) {
  const ModelConfig config{.layers = 2,
                           .hidden_size = 8,
                           .heads = 2,
                           .glu_size = 8,
                           .vocab_size = 5,
                           .layer_pattern = "LN",
                           .kv_heads = 2};
  const ParameterLayout layout(config);
  const std::vector<double> parameters = RandomParameters(layout, 1);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  EXPECT_THAT(
      RecurrentModel::Create(config, {2, 3}, backend.get(), ReaderOf(layout, parameters)).status(),
      lasp::testing::StatusIs(absl::StatusCode::kUnimplemented,
                              ::testing::HasSubstr("layer_pattern LN")));
}

TEST(RecurrentModelErrorsTest, RefusesChunksThatItWasNotMadeFor) {
  const ModelConfig config{
      .layers = 1, .hidden_size = 8, .heads = 2, .glu_size = 8, .vocab_size = 5};
  const ParameterLayout layout(config);
  const std::vector<double> parameters = RandomParameters(layout, 1);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  const auto model =
      RecurrentModel::Create(config, {2, 3}, backend.get(), ReaderOf(layout, parameters)).value();
  EXPECT_EQ(model->Advance({}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Advance({1, 2, 3}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Advance({1, 2, 3, 4, 0, 1, 2, 3}).code(), absl::StatusCode::kInvalidArgument);
  LASP_ASSERT_OK(model->Advance({1, 2, 3, 4}));
  EXPECT_EQ(model->AddLoss({1, 2}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lasp::worker
