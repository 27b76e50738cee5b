#include "kernels/update_decision.h"

#include <gtest/gtest.h>

#include <limits>
#include <utility>

namespace lasp::kernels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

UpdateDecision Decide(double limit, double loss, double sum_of_squares) {
  UpdateDecision decision{.apply = -1, .gradient_scale = -1};
  cpu::DecideUpdate({.max_gradient_norm = limit,
                     .loss_sum = &loss,
                     .sum_of_squares = &sum_of_squares,
                     .decision = &decision});
  return decision;
}

TEST(UpdateDecisionTest, ClipsAboveTheLimitOnly) {
  EXPECT_EQ(Decide(2, 1, 3.9).gradient_scale, 1);
  EXPECT_EQ(Decide(2, 1, 64).gradient_scale, 0.25);
  EXPECT_EQ(Decide(0, 1, 1e60).gradient_scale, 1);
  EXPECT_EQ(Decide(2, 1, 64).apply, 1);
}

TEST(UpdateDecisionTest, RefusesWhatIsNotFinite) {
  for (const auto& [loss, sum] :
       {std::pair{kNaN, 1.0}, {kInfinity, 1.0}, {-kInfinity, 1.0}, {1.0, kNaN}, {1.0, kInfinity}}) {
    EXPECT_EQ(Decide(1, loss, sum).apply, 0) << loss << " " << sum;
    EXPECT_EQ(Decide(1, loss, sum).gradient_scale, 0) << loss << " " << sum;
  }
}

}  // namespace
}  // namespace lasp::kernels
