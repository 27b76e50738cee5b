// The whole model in fp64 against an independent forward: its loss, and its gradients by finite
// differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/reference/transnormer.h"
#include "proto/rpc/status_macros.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/model/reference_model.h"

namespace lasp::worker {
namespace {

struct Case {
  bool tie_embeddings;
  bool learned_theta;
  int sp_size;
  // By default a slice ends inside a block of 64.
  int64_t length = 138;
  bool linear_transformer = false;
  const char* layer_pattern = "L";
};

class TransNormerGradientTest : public ::testing::TestWithParam<Case> {};

TEST_P(TransNormerGradientTest, AgreesWithFiniteDifferencesOfAnIndependentForward) {
  const ModelConfig config{.linear_transformer = GetParam().linear_transformer,
                           .layers = 2,
                           .hidden_size = 8,
                           .heads = 2,
                           .glu_size = 10,
                           .vocab_size = 11,
                           .tie_embeddings = GetParam().tie_embeddings,
                           .learned_theta = GetParam().learned_theta,
                           .layer_pattern = GetParam().layer_pattern,
                           .kv_heads = 1,
                           .rotary_base = 100};
  constexpr int64_t kSequences = 2;
  const int64_t length = GetParam().length;
  const RandomSequences data = MakeSequences(kSequences, length, config.vocab_size, 3);
  const ParameterLayout layout(config);
  std::vector<double> parameters(static_cast<size_t>(layout.count()));
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 0.4);
  std::generate(parameters.begin(), parameters.end(), [&] { return normal(random); });

  std::vector<double> gradients;
  double loss = 0;
  ExpectLocalRanks(
      {.sp_size = GetParam().sp_size, .compute_type = DType::kFloat64},
      [&](LocalRank& rank) -> absl::Status {
        LASP_ASSIGN_OR_RETURN(
            auto model,
            ModelUnderTest::Create(config, {kSequences, length / GetParam().sp_size}, rank));
        model->SetParameters(parameters);
        LASP_ASSIGN_OR_RETURN(const double rank_loss, model->Run(data.ids, data.labels));
        if (rank.grid.rank() == 0) {
          gradients = model->Gradients();
          loss = rank_loss;
        }
        return absl::OkStatus();
      });
  ASSERT_EQ(static_cast<int64_t>(gradients.size()), layout.count());

  const auto reference_loss = [&](const std::vector<double>& at) {
    return kernels::reference::TransNormerLoss(ReferenceModel(config, layout, at), kSequences,
                                               length, data.ids, data.labels);
  };
  EXPECT_NEAR(loss / reference_loss(parameters), 1, 1e-12);

  for (const Parameter& parameter : layout.parameters()) {
    double difference = 0;
    double scale = 0;
    const int64_t stride = std::max<int64_t>(1, parameter.count() / 6);
    for (int64_t i = parameter.offset + 1; i < parameter.offset + parameter.count(); i += stride) {
      // Five points: the error is of the fourth order in the step. A frequency is multiplied by
      // distances of up to the length, and what it turns is normalised afterwards. elu bends at 0.
      const double step = !parameter.decays ? 1e-6 : config.linear_transformer ? 2e-5 : 2e-4;
      const auto at = [&](double offset) {
        std::vector<double> moved = parameters;
        moved[static_cast<size_t>(i)] += offset;
        return reference_loss(moved);
      };
      const double expected =
          (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      difference += std::pow(gradients[static_cast<size_t>(i)] - expected, 2);
      scale += expected * expected;
    }
    EXPECT_LE(std::sqrt(difference), 1e-6 * std::sqrt(scale)) << parameter.name;
  }
}

std::string NameOf(const ::testing::TestParamInfo<Case>& tested) {
  return std::string(tested.param.layer_pattern) +
         std::string(tested.param.linear_transformer ? "LinearTransformer" : "") +
         std::string(tested.param.tie_embeddings ? "Tied" : "Untied") +
         (tested.param.learned_theta ? "Learned" : "Fixed") + "Sp" +
         std::to_string(tested.param.sp_size) + "Length" + std::to_string(tested.param.length);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, TransNormerGradientTest,
    ::testing::Values(Case{true, false, 1}, Case{false, true, 1}, Case{true, true, 3},
                      Case{false, false, 2}, Case{false, true, 4, 4}, Case{true, true, 1, 1},
                      Case{true, false, 1, 138, true}, Case{false, false, 3, 138, true},
                      Case{true, false, 4, 4, true}, Case{true, false, 1, 138, false, "LN"},
                      Case{false, true, 3, 138, false, "LN"},
                      Case{false, false, 2, 138, false, "NL"},
                      Case{true, false, 3, 138, true, "LN"}, Case{true, false, 2, 138, false, "N"},
                      Case{false, false, 4, 4, false, "N"}),
    NameOf);

}  // namespace
}  // namespace lasp::worker
