#include "worker/optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace lasp::worker {
namespace {

lasp::v1::OptimizerSpec Spec() {
  lasp::v1::OptimizerSpec spec;
  spec.set_weight_decay(0.1);
  spec.set_beta1(0.9);
  spec.set_beta2(0.95);
  spec.set_epsilon(1e-8);
  spec.set_max_gradient_norm(1);
  return spec;
}

// Loshchilov and Hutter, algorithm 2, one element at a time in fp64.
struct NaiveAdamW {
  double m = 0;
  double v = 0;
  int updates = 0;

  double Update(double parameter, double gradient, double learning_rate, double decay) {
    ++updates;
    m = 0.9 * m + 0.1 * gradient;
    v = 0.95 * v + 0.05 * gradient * gradient;
    const double m_hat = m / (1 - std::pow(0.9, updates));
    const double v_hat = v / (1 - std::pow(0.95, updates));
    return parameter - learning_rate * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * parameter);
  }
};

TEST(AdamWTest, FollowsANaiveOracleAndDecaysMatricesOnly) {
  constexpr int64_t kCount = 37;
  const auto backend = CreateCpuBackend(DType::kFloat64, 1).value();
  std::vector<double> parameters(kCount);
  std::vector<double> gradients(kCount);
  const Tensor parameter_view{parameters.data(), DType::kFloat64, 1, kCount, kCount};
  const Tensor gradient_view{gradients.data(), DType::kFloat64, 1, kCount, kCount};
  const auto range = [&](int64_t begin, int64_t count, bool decays) {
    return UpdatedRange{begin, begin, parameter_view.Columns(begin, count),
                        gradient_view.Columns(begin, count), decays};
  };
  const std::vector<UpdatedRange> ranges = {range(0, 20, true), range(20, 10, false),
                                            range(30, 7, true)};
  Arena plan;
  AdamW measured(Spec(), backend.get(), parameter_view, ranges, plan);
  Arena arena = Arena::Create(*backend, plan.used_bytes()).value();
  AdamW optimizer(Spec(), backend.get(), parameter_view, ranges, arena);

  kernels::UpdateControl control;
  const auto update = [&](double learning_rate, double sum_of_squares) {
    double loss = 1;
    optimizer.Update(learning_rate, std::numeric_limits<double>::infinity(),
                     {&loss, DType::kFloat64, 1, 1, 1}, {&sum_of_squares, DType::kFloat64, 1, 1, 1},
                     {&control, DType::kFloat64, 1, sizeof(control) / 8, sizeof(control) / 8});
  };

  std::vector<double> expected(kCount);
  std::vector<NaiveAdamW> oracle(kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    parameters[i] = expected[i] = std::sin(static_cast<double>(i));
  }
  for (int step = 1; step <= 5; ++step) {
    const double rate = 0.01 * step;
    const double scale = 1.0 / step;
    for (int64_t i = 0; i < kCount; ++i) {
      gradients[i] = std::cos(static_cast<double>(i * step));
      const bool decays = i < 20 || i >= 30;
      expected[i] = oracle[i].Update(expected[i], scale * gradients[i], rate, decays ? 0.1 : 0.0);
    }
    // A norm of `step`, clipped to 1.
    update(rate, static_cast<double>(step * step));
    for (int64_t i = 0; i < kCount; ++i) {
      ASSERT_NEAR(parameters[i], expected[i], 1e-14) << "element " << i << " step " << step;
    }
  }
  EXPECT_EQ(control.updates, 5);
  // A step that is left out changes nothing, moments included: the next is as if it had not been.
  update(1.0, std::numeric_limits<double>::infinity());
  for (int64_t i = 0; i < kCount; ++i) {
    ASSERT_NEAR(parameters[i], expected[i], 1e-14) << "element " << i;
  }
  update(0.01, 1);
  for (int64_t i = 0; i < kCount; ++i) {
    const bool decays = i < 20 || i >= 30;
    expected[i] = oracle[i].Update(expected[i], gradients[i], 0.01, decays ? 0.1 : 0.0);
    ASSERT_NEAR(parameters[i], expected[i], 1e-14) << "element " << i;
  }
  EXPECT_EQ(control.updates, 6);
  EXPECT_EQ(control.skipped, 1);
}

}  // namespace
}  // namespace lasp::worker
