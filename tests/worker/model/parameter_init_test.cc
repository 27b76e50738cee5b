#include "worker/model/parameter_init.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lasp::worker {
namespace {

std::vector<float> Make(const ModelConfig& config, int64_t seed) {
  const ParameterLayout layout(config);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  std::vector<float> parameters(static_cast<size_t>(layout.count()));
  InitializeParameters(config, layout, seed, *backend, {{.begin = 0, .count = layout.count()}},
                       {parameters.data(), DType::kFloat32, 1, layout.count(), layout.count()});
  return parameters;
}

const ModelConfig kConfig{.layers = 1,
                          .hidden_size = 32,
                          .heads = 2,
                          .glu_size = 48,
                          .vocab_size = 64,
                          .tie_embeddings = true,
                          .init_std = 0.02};

TEST(ParameterInitTest, IsNormalWithTheDeviationAsked) {
  double sum = 0;
  double squares = 0;
  double fourths = 0;
  constexpr int kCount = 200000;
  for (int i = 0; i < kCount / 2; ++i) {
    for (const double x : NormalDeviates(1, 2, static_cast<uint64_t>(i))) {
      sum += x;
      squares += x * x;
      fourths += x * x * x * x;
    }
  }
  EXPECT_NEAR(sum / kCount, 0, 0.01);
  EXPECT_NEAR(squares / kCount, 1, 0.015);
  EXPECT_NEAR(fourths / kCount, 3, 0.1);

  const std::vector<float> parameters = Make(kConfig, 1);
  double variance = 0;
  for (const float parameter : parameters) {
    variance += parameter * parameter;
  }
  EXPECT_NEAR(std::sqrt(variance / static_cast<double>(parameters.size())), 0.02, 0.0005);
}

TEST(ParameterInitTest, LargeTensorsAreTheirStreamWholeWhateverTheThreads) {
  // Larger than a piece, and than what one thread fills; an odd number of columns.
  ModelConfig large = kConfig;
  large.hidden_size = 63;
  large.heads = 1;
  large.vocab_size = 70001;
  const ParameterLayout layout(large);
  const Parameter& embedding = layout.parameters().front();
  ASSERT_EQ(embedding.count(), int64_t{63} * 70001);
  const std::vector<float> parameters = Make(large, 1);
  // The same stream under another shape.
  large.vocab_size = 1001;
  const std::vector<float> small = Make(large, 1);
  for (size_t i = 0; i < size_t{63} * 1001; ++i) {
    ASSERT_EQ(parameters[i], small[i]) << i;
  }
  for (const int64_t i : {int64_t{4194303}, int64_t{4194304}, embedding.count() - 1}) {
    EXPECT_NE(parameters[i], 0) << i;
    EXPECT_NE(parameters[i], parameters[i - 1]) << i;
  }
}

TEST(ParameterInitTest, APartIsThatPartOfTheWhole) {
  ModelConfig config = kConfig;
  config.learned_theta = true;
  const ParameterLayout layout(config);
  const std::vector<float> whole = Make(config, 1);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  // Across borders of parameters, and from an odd element on.
  const std::vector<TensorShare> shares = {{.begin = 1, .count = 2100, .local = 3},
                                           {.begin = 3001, .count = 4500, .local = 2200}};
  std::vector<float> part(7000, -1);
  InitializeParameters(config, layout, 1, *backend, shares,
                       {part.data(), DType::kFloat32, 1, 7000, 7000});
  for (const TensorShare& share : shares) {
    for (int64_t i = 0; i < share.count; ++i) {
      ASSERT_EQ(part[static_cast<size_t>(share.local + i)],
                whole[static_cast<size_t>(share.begin + i)])
          << i;
    }
  }
  EXPECT_EQ(part[2], -1);
  EXPECT_EQ(part[2103], -1);
}

TEST(ParameterInitTest, DependsOnSeedAndNameAlone) {
  EXPECT_EQ(Make(kConfig, 1), Make(kConfig, 1));
  EXPECT_NE(Make(kConfig, 1), Make(kConfig, 2));
  // The same names in a larger model are the same tensors, wherever they lie.
  ModelConfig learned = kConfig;
  learned.learned_theta = true;
  const std::vector<float> fixed_theta = Make(kConfig, 1);
  const std::vector<float> learned_theta = Make(learned, 1);
  const Parameter l3_fixed = ParameterLayout(kConfig).parameters().back();
  const Parameter l3_learned = ParameterLayout(learned).parameters().back();
  ASSERT_EQ(l3_fixed.name, l3_learned.name);
  EXPECT_NE(l3_fixed.offset, l3_learned.offset);
  for (int64_t i = 0; i < l3_fixed.count(); ++i) {
    ASSERT_EQ(fixed_theta[l3_fixed.offset + i], learned_theta[l3_learned.offset + i]);
  }
}

TEST(ParameterInitTest, LearnedFrequenciesStartAtTheFixedOnes) {
  ModelConfig config = kConfig;
  config.learned_theta = true;
  const std::vector<float> parameters = Make(config, 1);
  const ParameterLayout layout(config);
  int learned = 0;
  for (const Parameter& parameter : layout.parameters()) {
    if (parameter.decays) {
      continue;
    }
    ++learned;
    EXPECT_FLOAT_EQ(parameters[parameter.offset], 1);
    EXPECT_FLOAT_EQ(parameters[parameter.offset + 31],
                    static_cast<float>(std::pow(10000, -2.0 * 31 / 32)));
  }
  EXPECT_EQ(learned, 1);
}

}  // namespace
}  // namespace lasp::worker
