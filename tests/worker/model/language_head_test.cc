#include "worker/model/language_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace lasp::worker {
namespace {

Tensor View(std::vector<double>& values, int64_t rows, int64_t columns) {
  return {values.data(), DType::kFloat64, rows, columns, columns};
}

TEST(LanguageHeadTest, ChunksAddUpToTheWholeLossAndGradient) {
  // A vocabulary for which the rows come in several chunks, the last one short.
  constexpr int64_t kRows = 150;
  constexpr int64_t kVocabulary = 1 << 14;
  constexpr int64_t kHidden = 3;
  const auto backend = CreateCpuBackend(DType::kFloat64, 1).value();
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<double> hidden(kRows * kHidden);
  std::vector<double> weight(kVocabulary * kHidden);
  std::vector<int32_t> labels(kRows);
  std::generate(hidden.begin(), hidden.end(), [&] { return normal(random); });
  std::generate(weight.begin(), weight.end(), [&] { return normal(random); });
  std::generate(labels.begin(), labels.end(),
                [&] { return static_cast<int32_t>(random() % kVocabulary); });
  labels[7] = -1;
  labels[149] = -1;

  Arena plan;
  const LanguageHead measured(kRows, kVocabulary, backend.get(), plan);
  EXPECT_LT(plan.used_bytes(), kRows * kVocabulary * 8);
  Arena arena = Arena::Create(*backend, plan.used_bytes()).value();
  LanguageHead head(kRows, kVocabulary, backend.get(), arena);
  std::vector<double> loss(1);
  std::vector<double> hidden_gradient(hidden.size());
  std::vector<double> weight_gradient(weight.size(), 1);
  const double scale = 0.25;
  const Tensor label_view{labels.data(), DType::kInt32, kRows, 1, 1};
  head.Run(View(hidden, kRows, kHidden), View(weight, kVocabulary, kHidden), label_view, scale,
           View(loss, 1, 1), View(hidden_gradient, kRows, kHidden),
           View(weight_gradient, kVocabulary, kHidden), /*adds=*/true);

  double expected_loss = 0;
  std::vector<double> expected_weight_gradient(weight.size(), 1);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto logit = [&](int64_t token) {
      double sum = 0;
      for (int64_t i = 0; i < kHidden; ++i) {
        sum += hidden[row * kHidden + i] * weight[token * kHidden + i];
      }
      return sum;
    };
    if (labels[row] < 0) {
      EXPECT_EQ(hidden_gradient[row * kHidden], 0);
      continue;
    }
    double total = 0;
    for (int64_t token = 0; token < kVocabulary; ++token) {
      total += std::exp(logit(token));
    }
    expected_loss += std::log(total) - logit(labels[row]);
    std::vector<double> expected(kHidden);
    for (int64_t token = 0; token < kVocabulary; ++token) {
      const double gradient =
          scale * (std::exp(logit(token)) / total - (token == labels[row] ? 1 : 0));
      for (int64_t i = 0; i < kHidden; ++i) {
        expected[i] += gradient * weight[token * kHidden + i];
        expected_weight_gradient[token * kHidden + i] += gradient * hidden[row * kHidden + i];
      }
    }
    for (int64_t i = 0; i < kHidden; ++i) {
      EXPECT_NEAR(hidden_gradient[row * kHidden + i], expected[i], 1e-12);
    }
  }
  EXPECT_NEAR(loss[0], expected_loss, 1e-9);
  for (size_t i = 0; i < weight.size(); ++i) {
    ASSERT_NEAR(weight_gradient[i], expected_weight_gradient[i], 1e-12);
  }

  // The loss alone is the same.
  std::vector<double> loss_alone(1);
  head.Run(View(hidden, kRows, kHidden), View(weight, kVocabulary, kHidden), label_view, 0,
           View(loss_alone, 1, 1), Tensor{}, Tensor{}, false);
  EXPECT_EQ(loss_alone[0], loss[0]);
}

}  // namespace
}  // namespace lasp::worker
