#include "kernels/decay_slopes.h"

#include <bit>
#include <cmath>

namespace lasp::kernels {
namespace {

// a^(h+1) with a = 2^(-8/heads), heads a power of two.
double PowerOfTwoSlope(int64_t heads, int64_t head) {
  return std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(heads));
}

}  // namespace

void DecaySlopes(int64_t layer, int64_t layers, int64_t heads, double* slopes) {
  const double depth =
      layers > 1 ? static_cast<double>(layer) / static_cast<double>(layers - 1) : 0.0;
  const double factor = 1.0 - depth + 1e-5;
  const auto whole = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  for (int64_t head = 0; head < heads; ++head) {
    const double base = head < whole ? PowerOfTwoSlope(whole, head)
                                     : PowerOfTwoSlope(2 * whole, 2 * (head - whole));
    slopes[head] = base * factor;
  }
}

}  // namespace lasp::kernels
