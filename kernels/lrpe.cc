#include "kernels/lrpe.h"

#include <cmath>

namespace lasp::kernels {

void LrpeTheta(int64_t heads, int64_t head_size, double* theta) {
  const int64_t hidden_size = heads * head_size;
  for (int64_t i = 0; i < hidden_size; ++i) {
    theta[i] = std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(hidden_size));
  }
}

}  // namespace lasp::kernels
