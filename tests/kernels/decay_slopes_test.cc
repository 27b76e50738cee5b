#include "kernels/decay_slopes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/lrpe.h"
#include "kernels/reference/transnormer.h"

namespace lasp::kernels {
namespace {

std::vector<double> Slopes(int64_t layer, int64_t layers, int64_t heads) {
  std::vector<double> slopes(static_cast<size_t>(heads));
  DecaySlopes(layer, layers, heads, slopes.data());
  return slopes;
}

TEST(DecaySlopes, AreThoseOfAlibiInTheFirstLayer) {
  const double factor = 1.0 + 1e-5;
  const std::vector<double> eight = Slopes(0, 24, 8);
  EXPECT_NEAR(eight[0], 0.5 * factor, 1e-12);
  EXPECT_NEAR(eight[7], 0.00390625 * factor, 1e-12);
  const std::vector<double> twelve = Slopes(0, 24, 12);
  EXPECT_NEAR(twelve[7], 0.00390625 * factor, 1e-12);
  EXPECT_NEAR(twelve[8], std::sqrt(0.5) * factor, 1e-12);
  EXPECT_NEAR(twelve[9], std::sqrt(0.125) * factor, 1e-12);
  EXPECT_NEAR(twelve[11], std::sqrt(0.0078125) * factor, 1e-12);
}

TEST(DecaySlopes, HardlyDecayInTheLastLayer) { EXPECT_NEAR(Slopes(23, 24, 8)[0], 0.5e-5, 1e-15); }

TEST(DecaySlopes, OfTheOnlyLayerAreThoseOfAFirst) { EXPECT_EQ(Slopes(0, 1, 4), Slopes(0, 2, 4)); }

TEST(DecaySlopes, AgreeWithTheOracle) {
  for (const int64_t layers : {1, 2, 5}) {
    for (const int64_t heads : {1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 32, 40}) {
      for (int64_t layer = 0; layer < layers; ++layer) {
        const std::vector<double> slopes = Slopes(layer, layers, heads);
        for (int64_t head = 0; head < heads; ++head) {
          const double expected = reference::TransNormerSlope(layer, layers, head, heads);
          EXPECT_NEAR(slopes[static_cast<size_t>(head)], expected, 1e-14);
        }
      }
    }
  }
}

TEST(LrpeTheta, FallsFromOneOverAllHeads) {
  std::vector<double> theta(12);
  LrpeTheta(3, 4, theta.data());
  EXPECT_EQ(theta[0], 1.0);
  EXPECT_NEAR(theta[6], 1e-4, 1e-16);
  EXPECT_NEAR(theta[11], std::pow(10000.0, -22.0 / 12.0), 1e-16);
}

}  // namespace
}  // namespace lasp::kernels
