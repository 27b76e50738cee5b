#include "worker/inference/evaluation.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/inference/parameters_in_memory.h"
#include "tests/worker/model/reference_model.h"
#include "worker/data/batch.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kLength = 70;  // more than a block of 64
constexpr int64_t kTokens = 5 * kLength + 30;

TEST(EvaluationPlanTest, TakesWholeSequencesUpToALimit) {
  EXPECT_EQ(PlanEvaluation(11, 5, 0)->labels, 10);
  EXPECT_EQ(PlanEvaluation(15, 5, 0)->labels, 10);
  EXPECT_EQ(PlanEvaluation(11, 5, 100)->labels, 10);
  EXPECT_EQ(PlanEvaluation(11, 5, 7)->labels, 7);
  EXPECT_EQ(PlanEvaluation(11, 5, 7)->sequences(), 2);
  EXPECT_EQ(PlanEvaluation(11, 5, 5)->sequences(), 1);
  EXPECT_THAT(PlanEvaluation(5, 5, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("hold 5 tokens")));
}

TEST(EvaluationPlanTest, ShapesWhatIsTakenAtATime) {
  EvaluationPlan plan{.sequence_length = 10, .labels = 95};
  const auto shape = [&](int64_t rows) {
    const MicroBatchShape taken = EvaluationShape(plan, rows);
    return std::vector<int64_t>{taken.sequences, taken.tokens};
  };
  EXPECT_EQ(shape(1000), (std::vector<int64_t>{10, 10}));
  EXPECT_EQ(shape(39), (std::vector<int64_t>{3, 10}));
  EXPECT_EQ(shape(10), (std::vector<int64_t>{1, 10}));
  EXPECT_EQ(shape(4), (std::vector<int64_t>{1, 4}));
  plan.labels = 1000;
  EXPECT_EQ(shape(1000), (std::vector<int64_t>{16, 10}));
}

class EvaluationTest : public ::testing::Test {
 protected:
  EvaluationTest() {
    std::string text;
    for (int64_t i = 0; i < kTokens; ++i) {
      text += static_cast<char>('a' + i * i % 7);
    }
    temp_.Write("text", text);
    ids_.assign(text.begin(), text.end());
    corpus_ =
        Corpus::Open({"text"}, lasp::v1::DataSpec::FORMAT_BYTES, config_.vocab_size, {temp_.path()})
            .value();
  }

  double Loss(const EvaluationPlan& plan, int64_t rows) const {
    const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
    const MicroBatchShape shape = EvaluationShape(plan, rows);
    const auto model =
        RecurrentModel::Create(config_, shape, backend.get(), ReaderOf(layout_, parameters_))
            .value();
    int64_t told = 0;
    const double sum = EvaluateCorpus(*corpus_, plan, shape, model.get(), [&](int64_t labels) {
                         EXPECT_GT(labels, told);
                         told = labels;
                         return absl::OkStatus();
                       }).value();
    EXPECT_EQ(told, plan.labels);
    return sum / static_cast<double>(plan.labels);
  }

  double ReferenceLoss(const EvaluationPlan& plan) const {
    std::vector<int32_t> ids(static_cast<size_t>(plan.sequences() * kLength));
    std::vector<int32_t> labels(ids.size(), kNoLabel);
    for (size_t i = 0; i < ids.size(); ++i) {
      ids[i] = ids_[i];
      labels[i] = static_cast<int64_t>(i) < plan.labels ? ids_[i + 1] : kNoLabel;
    }
    return kernels::reference::TransNormerLoss(ReferenceModel(config_, layout_, parameters_),
                                               plan.sequences(), kLength, ids, labels);
  }

  const lasp::testing::TempDirectory temp_;
  const ModelConfig config_{
      .layers = 2, .hidden_size = 8, .heads = 2, .glu_size = 12, .vocab_size = 128};
  const ParameterLayout layout_{config_};
  const std::vector<double> parameters_ = RandomParameters(layout_, 0.3);
  std::vector<int32_t> ids_;
  std::unique_ptr<Corpus> corpus_;
};

TEST_F(EvaluationTest, TheLossDoesNotDependOnWhatIsTakenAtATime) {
  for (const int64_t max_labels : {int64_t{0}, 3 * kLength + 20, int64_t{33}}) {
    const EvaluationPlan plan = PlanEvaluation(kTokens, kLength, max_labels).value();
    const double expected = ReferenceLoss(plan);
    for (const int64_t rows : {int64_t{10'000}, 2 * kLength, kLength, int64_t{64}, int64_t{9}}) {
      EXPECT_NEAR(Loss(plan, rows) / expected, 1, 1e-6) << max_labels << " " << rows;
    }
  }
}

TEST_F(EvaluationTest, EndsWhereNobodyListens) {
  const EvaluationPlan plan = PlanEvaluation(kTokens, kLength, 0).value();
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  const MicroBatchShape shape{.sequences = 1, .tokens = kLength};
  const auto model =
      RecurrentModel::Create(config_, shape, backend.get(), ReaderOf(layout_, parameters_)).value();
  EXPECT_THAT(EvaluateCorpus(*corpus_, plan, shape, model.get(),
                             [](int64_t /*labels*/) { return absl::CancelledError("gone"); }),
              StatusIs(absl::StatusCode::kCancelled, "gone"));
}

}  // namespace
}  // namespace lasp::worker
