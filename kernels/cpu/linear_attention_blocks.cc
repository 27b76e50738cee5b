#include "kernels/cpu/linear_attention_blocks.h"

#include <limits>

namespace lasp::kernels::cpu {

template <typename T>
bool FarScale(const AttentionHead<T>& head, int64_t start, int64_t length, T* scale) {
  if (head.Decay(start) < static_cast<double>(std::numeric_limits<T>::min())) {
    return false;
  }
  for (int64_t i = 0; i < length; ++i) {
    scale[i] = static_cast<T>(head.Decay(start + i));
  }
  return true;
}

template <typename T>
void AddThetaSums(const LinearAttentionShape& shape, const double* pair_sums, T* theta_gradient) {
  const int64_t elements = shape.heads * shape.key_size;
  for (int64_t i = 0; i < elements; ++i) {
    double sum = 0;
    for (int64_t batch = 0; batch < shape.batch; ++batch) {
      sum += pair_sums[batch * elements + i];
    }
    theta_gradient[i] += static_cast<T>(sum);
  }
}

template bool FarScale<float>(const AttentionHead<float>&, int64_t, int64_t, float*);
template bool FarScale<double>(const AttentionHead<double>&, int64_t, int64_t, double*);
template void AddThetaSums<float>(const LinearAttentionShape&, const double*, float*);
template void AddThetaSums<double>(const LinearAttentionShape&, const double*, double*);

}  // namespace lasp::kernels::cpu
