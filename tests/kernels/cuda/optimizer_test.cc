#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/bf16_rounding.h"
#include "kernels/cuda/adamw.h"
#include "kernels/cuda/global_norm.h"
#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class OptimizerCuda : public lasp::testing::GpuTest {};

TEST_F(OptimizerCuda, SumOfSquaresFindsWhatIsNotFinite) {
  const DeviceArray<char> workspace(SumOfSquaresWorkspaceBytes());
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{3000001}}) {
    for (const int64_t offset : {0, 1}) {
      const std::vector<double> x = RandomValues<float>(count + offset, 1);
      double expected = 3;
      for (size_t i = static_cast<size_t>(offset); i < x.size(); ++i) {
        expected += x[i] * x[i];
      }
      DeviceArray<float> x_d(x);
      const DeviceArray<double> sum(std::vector<double>{3});
      ASSERT_EQ(SumOfSquares({count, x_d.data() + offset, sum.data()}, workspace.data(), nullptr),
                cudaSuccess);
      EXPECT_NEAR(sum.Values()[0], expected, 1e-12 * expected);
      if (count > 0) {
        x_d.Upload(count + offset - 1, {std::numeric_limits<float>::infinity()});
        ASSERT_EQ(SumOfSquares({count, x_d.data() + offset, sum.data()}, workspace.data(), nullptr),
                  cudaSuccess);
        EXPECT_FALSE(std::isfinite(sum.Values()[0]));
      }
    }
  }
}

// Parameters in the sizes given, odd ones among them, each trained by five updates.
TEST_F(OptimizerCuda, AdamWOverManyTensorsAndSteps) {
  constexpr int kSteps = 5;
  std::vector<int64_t> counts = {1, 3, 2048, 5000, 70000};
  counts.resize(60, 9);  // more tensors than a launch holds
  const DeviceArray<UpdateControl> control(
      std::vector<UpdateControl>{UpdateControl{.learning_rate = 1e-2}});
  const DeviceArray<double> sum_of_squares(std::vector<double>{16});
  const DeviceArray<double> loss(std::vector<double>{1});

  struct State {
    std::vector<double> start;
    std::vector<std::vector<double>> gradients;
    DeviceArray<float> parameter;
    DeviceArray<float> gradient;
    DeviceArray<float> first;
    DeviceArray<float> second;
    DeviceArray<Bf16> copy;
  };

  std::vector<State> states;
  states.reserve(counts.size());
  std::vector<AdamWTensor<float>> tensors;
  for (const int64_t count : counts) {
    const auto seed = static_cast<uint32_t>(10 * states.size());
    std::vector<std::vector<double>> gradients;
    gradients.reserve(kSteps);
    for (uint32_t step = 0; step < kSteps; ++step) {
      gradients.push_back(RandomValues<float>(count, seed + 1 + step));
    }
    const std::vector<double> start = RandomValues<float>(count, seed);
    const std::vector<float> zeros(static_cast<size_t>(count));
    states.push_back({start, gradients, DeviceArray<float>(start), DeviceArray<float>(count),
                      DeviceArray<float>(zeros), DeviceArray<float>(zeros),
                      DeviceArray<Bf16>(count)});
    const State& state = states.back();
    tensors.push_back({.count = count,
                       .parameter = state.parameter.data(),
                       .gradient = state.gradient.data(),
                       .first_moment = state.first.data(),
                       .second_moment = state.second.data(),
                       .copy = states.size() == 2 ? nullptr : state.copy.data(),
                       .weight_decay = states.size() % 2 == 0 ? 0.0F : 0.1F});
  }
  for (size_t step = 0; step < kSteps; ++step) {
    for (State& state : states) {
      state.gradient.Upload(0, Converted<float>(state.gradients[step]));
    }
    // A norm of 4 clipped to 2: the gradient is halved.
    ASSERT_EQ(JudgeUpdate({.max_gradient_norm = 2,
                           .loss = loss.data(),
                           .sum_of_squares = sum_of_squares.data(),
                           .control = control.data()},
                          nullptr),
              cudaSuccess);
    ASSERT_EQ(AdamW<float>({.tensors = tensors.data(),
                            .tensor_count = static_cast<int>(tensors.size()),
                            .control = control.data()},
                           nullptr),
              cudaSuccess);
  }
  for (size_t i = 0; i < states.size(); ++i) {
    const std::vector<double> expected = reference::AdamW(
        states[i].start, states[i].gradients, 1e-2, 0.9, 0.95, 1e-8, i % 2 == 0 ? 0.1 : 0.0, 0.5);
    const std::vector<double> actual = states[i].parameter.Values();
    EXPECT_LE(RelativeRms(actual, expected), kFp32Tolerance) << i;
    if (tensors[i].copy != nullptr) {
      EXPECT_EQ(states[i].copy.Values(), RoundedToBf16(actual)) << i;
    }
  }
  const UpdateControl judged = control.Download()[0];
  EXPECT_EQ(judged.updates, kSteps);
  EXPECT_EQ(judged.gradient_norm, 4);
}

// Rounded at random as on the CPU: the same, but where the last bit of fp32 decides.
TEST_F(OptimizerCuda, Bf16MomentsAreTheCpus) {
  constexpr int64_t kCount = 100'003;
  constexpr int64_t kFirst = (int64_t{1} << 33) + 5;
  std::vector<float> p(kCount);
  std::vector<uint16_t> m(kCount);
  std::vector<uint16_t> v(kCount);
  const DeviceArray<float> parameter(p);
  const DeviceArray<Bf16> first(p);
  const DeviceArray<Bf16> second(p);
  for (int update = 1; update <= 3; ++update) {
    const std::vector<double> values = RandomValues<float>(kCount, static_cast<uint32_t>(update));
    const std::vector<float> gradient(values.begin(), values.end());
    const DeviceArray<float> gradient_d(gradient);
    const UpdateControl control{.learning_rate = 1e-3,
                                .apply = 1,
                                .updates = static_cast<double>(update),
                                .correction1 = 1 - std::pow(0.9, update),
                                .correction2 = 1 - std::pow(0.95, update)};
    const DeviceArray<UpdateControl> control_d(std::vector<UpdateControl>{control});
    cpu::AdamW<float, uint16_t>({.count = kCount,
                                 .parameter = p.data(),
                                 .gradient = gradient.data(),
                                 .first_moment = m.data(),
                                 .second_moment = v.data(),
                                 .first_element = kFirst,
                                 .control = &control});
    const AdamWTensor<Bf16> tensor = {.count = kCount,
                                      .parameter = parameter.data(),
                                      .gradient = gradient_d.data(),
                                      .first_moment = first.data(),
                                      .second_moment = second.data(),
                                      .first_element = kFirst};
    ASSERT_EQ(
        AdamW<Bf16>({.tensors = &tensor, .tensor_count = 1, .control = control_d.data()}, nullptr),
        cudaSuccess);
  }
  const std::vector<double> first_values = first.Values();
  const std::vector<double> second_values = second.Values();
  int64_t different = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const auto at = static_cast<size_t>(i);
    different += first_values[at] == FromBf16Bits(m[at]) ? 0 : 1;
    different += second_values[at] == FromBf16Bits(v[at]) ? 0 : 1;
  }
  EXPECT_LE(different, kCount / 100);
  EXPECT_LE(RelativeRms(parameter.Values(), std::vector<double>(p.begin(), p.end())), 1e-3);
}

TEST_F(OptimizerCuda, AStepThatIsNotFiniteChangesNothing) {
  const std::vector<double> start = RandomValues<float>(5000, 1);
  const DeviceArray<float> parameter(start);
  const DeviceArray<float> gradient(5000);  // NaN
  const DeviceArray<float> first(std::vector<float>(5000));
  const DeviceArray<float> second(std::vector<float>(5000));
  const DeviceArray<UpdateControl> control(
      std::vector<UpdateControl>{UpdateControl{.learning_rate = 1}});
  const AdamWTensor<float> tensor = {.count = 5000,
                                     .parameter = parameter.data(),
                                     .gradient = gradient.data(),
                                     .first_moment = first.data(),
                                     .second_moment = second.data()};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  double skipped = 0;
  for (const auto& [norm, loss] : {std::pair<double, double>{nan, 1},
                                   {1, nan},
                                   {std::numeric_limits<double>::infinity(), 1}}) {
    const DeviceArray<double> sum_of_squares(std::vector<double>{norm});
    const DeviceArray<double> loss_d(std::vector<double>{loss});
    ASSERT_EQ(JudgeUpdate({.loss = loss_d.data(),
                           .sum_of_squares = sum_of_squares.data(),
                           .control = control.data()},
                          nullptr),
              cudaSuccess);
    ASSERT_EQ(
        AdamW<float>({.tensors = &tensor, .tensor_count = 1, .control = control.data()}, nullptr),
        cudaSuccess);
    const UpdateControl judged = control.Download()[0];
    EXPECT_EQ(judged.apply, 0);
    EXPECT_EQ(judged.skipped, ++skipped);
    EXPECT_EQ(judged.updates, 0);
  }
  EXPECT_EQ(parameter.Values(), start);
  EXPECT_EQ(first.Values(), std::vector<double>(5000));
}

TEST_F(OptimizerCuda, WhatWasBrokenOffChangesNothingAndIsNotCounted) {
  const std::vector<double> start = RandomValues<float>(5000, 1);
  const DeviceArray<float> parameter(start);
  const DeviceArray<float> gradient(std::vector<float>(5000, 1.0F));
  const DeviceArray<float> first(std::vector<float>(5000));
  const DeviceArray<float> second(std::vector<float>(5000));
  const DeviceArray<UpdateControl> control(
      std::vector<UpdateControl>{UpdateControl{.learning_rate = 1}});
  const AdamWTensor<float> tensor = {.count = 5000,
                                     .parameter = parameter.data(),
                                     .gradient = gradient.data(),
                                     .first_moment = first.data(),
                                     .second_moment = second.data()};
  const DeviceArray<double> one(std::vector<double>{1});
  for (const uint32_t broken_off : {1, 0}) {
    const DeviceArray<uint32_t> word(std::vector<uint32_t>{broken_off});
    ASSERT_EQ(JudgeUpdate({.loss = one.data(),
                           .sum_of_squares = one.data(),
                           .control = control.data(),
                           .broken_off = word.data()},
                          nullptr),
              cudaSuccess);
    ASSERT_EQ(
        AdamW<float>({.tensors = &tensor, .tensor_count = 1, .control = control.data()}, nullptr),
        cudaSuccess);
    const UpdateControl judged = control.Download()[0];
    EXPECT_EQ(judged.updates, 1 - broken_off);
    EXPECT_EQ(judged.skipped, 0);
    EXPECT_EQ(parameter.Values() == start, broken_off == 1);
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
