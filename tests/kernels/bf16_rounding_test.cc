// Rounding to bf16 at random, and what it is for: moments that move by less than half a step.
#include "kernels/bf16_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/adamw.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

constexpr int64_t kCount = 20'000;

TEST(Bf16Rounding, IsOneOfTheTwoNeighboursAndRightInTheMean) {
  for (const float x : {1.0F, 1.001F, -3.1415F, 1e-30F, 6.5e4F, 0.0F, -0.99999F}) {
    const float below = FromBf16Bits(RoundedAtRandom(x, 0));
    const float above = FromBf16Bits(RoundedAtRandom(x, 0xffff));
    EXPECT_LE(std::fabs(below), std::fabs(x));
    EXPECT_GE(std::fabs(above), std::fabs(x));
    double sum = 0;
    for (int64_t i = 0; i < kCount; ++i) {
      const float rounded = FromBf16Bits(RoundedAtRandom(x, RoundingBits(3, i)));
      EXPECT_TRUE(rounded == below || rounded == above) << x;
      sum += rounded;
    }
    // Five deviations of a mean of so many.
    const double step = std::fabs(above - below);
    EXPECT_NEAR(sum / kCount, x, 5 * step / 2 / std::sqrt(kCount)) << x;
  }
}

TEST(Bf16Rounding, WhatIsABf16StaysOne) {
  for (uint32_t bits = 0; bits < 0x7f80; bits += 7) {
    const float x = FromBf16Bits(static_cast<uint16_t>(bits));
    EXPECT_EQ(RoundedAtRandom(x, 0xffff), bits);
    EXPECT_EQ(NearestBf16Bits(x), bits);
  }
}

TEST(Bf16Rounding, NearestIsToEvenInTheMiddle) {
  EXPECT_EQ(NearestBf16Bits(1.0F + 0x1p-8F), 0x3f80);
  EXPECT_EQ(NearestBf16Bits(1.0F + 0x1p-7F + 0x1p-8F), 0x3f82);
  EXPECT_EQ(NearestBf16Bits(-1.0F - 0x1.1p-8F), 0xbf81);
}

// Bits of one element at two updates, of two elements, and of both moments have nothing in common.
TEST(Bf16Rounding, BitsAreIndependent) {
  const auto correlation = [](const auto& a, const auto& b) {
    double sum = 0;
    for (int64_t i = 0; i < kCount; ++i) {
      sum += (a(i) / 65535.0 - 0.5) * (b(i) / 65535.0 - 0.5);
    }
    return 12 * sum / kCount;
  };
  const auto low = [](uint32_t update, int64_t element) {
    return static_cast<double>(RoundingBits(update, element) & 0xffff);
  };
  const double bound = 5 / std::sqrt(kCount);
  EXPECT_LE(std::fabs(correlation([&](int64_t i) { return low(1, i); },
                                  [&](int64_t i) { return low(2, i); })),
            bound);
  EXPECT_LE(std::fabs(correlation([&](int64_t i) { return low(1, i); },
                                  [&](int64_t i) { return low(1, i + 1); })),
            bound);
  EXPECT_LE(std::fabs(correlation(
                [&](int64_t i) { return low(1, i); },
                [&](int64_t i) { return static_cast<double>(RoundingBits(1, i) >> 16); })),
            bound);
  EXPECT_LE(std::fabs(correlation([&](int64_t i) { return low(1, i); },
                                  [&](int64_t i) { return low(1, i + (int64_t{1} << 32)); })),
            bound);
}

// With beta2 = 0.999 an update moves v by a thousandth: less than half a step of bf16, a 512th,
// which rounding to the nearest would never take.
TEST(Bf16Rounding, MomentsFollowThoseOfFp32) {
  constexpr int kUpdates = 3000;
  std::vector<float> p(kCount);
  std::vector<float> gradient(kCount, 0.5F);
  std::vector<float> p16(kCount);
  std::vector<float> m(kCount);
  std::vector<float> v(kCount);
  std::vector<uint16_t> m16(kCount);
  std::vector<uint16_t> v16(kCount);
  UpdateControl control{.learning_rate = 1e-3, .apply = 1};
  for (int update = 1; update <= kUpdates; ++update) {
    control.updates = update;
    control.correction1 = 1 - std::pow(0.9, update);
    control.correction2 = 1 - std::pow(0.999, update);
    cpu::AdamW<float>({.count = kCount,
                       .parameter = p.data(),
                       .gradient = gradient.data(),
                       .first_moment = m.data(),
                       .second_moment = v.data(),
                       .beta2 = 0.999,
                       .control = &control});
    cpu::AdamW<float, uint16_t>({.count = kCount,
                                 .parameter = p16.data(),
                                 .gradient = gradient.data(),
                                 .first_moment = m16.data(),
                                 .second_moment = v16.data(),
                                 .beta2 = 0.999,
                                 .control = &control});
  }
  double mean_m = 0;
  double mean_v = 0;
  double mean_p = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    mean_m += FromBf16Bits(m16[i]) / kCount;
    mean_v += FromBf16Bits(v16[i]) / kCount;
    mean_p += p16[i] / kCount;
  }
  EXPECT_NEAR(mean_m / m[0], 1, 1e-3);
  EXPECT_NEAR(mean_v / v[0], 1, 1e-3);
  EXPECT_NEAR(mean_p / p[0], 1, 1e-2);
}

// However a range is cut, and among however many ranks.
TEST(Bf16Rounding, DependsOnTheElementAlone) {
  const std::vector<double> values = RandomValues<float>(1000, 1);
  const std::vector<float> gradient(values.begin(), values.end());
  const UpdateControl control{.learning_rate = 1e-3, .apply = 1, .updates = 1};
  const auto moments = [&](const std::vector<int64_t>& borders) {
    std::vector<float> p(gradient.size());
    std::vector<uint16_t> m(gradient.size());
    std::vector<uint16_t> v(gradient.size());
    for (size_t i = 0; i + 1 < borders.size(); ++i) {
      cpu::AdamW<float, uint16_t>({.count = borders[i + 1] - borders[i],
                                   .parameter = p.data() + borders[i],
                                   .gradient = gradient.data() + borders[i],
                                   .first_moment = m.data() + borders[i],
                                   .second_moment = v.data() + borders[i],
                                   .first_element = borders[i],
                                   .control = &control});
    }
    m.insert(m.end(), v.begin(), v.end());
    return m;
  };
  EXPECT_EQ(moments({0, 1000}), moments({0, 1, 17, 512, 999, 1000}));
}

}  // namespace
}  // namespace lasp::kernels
