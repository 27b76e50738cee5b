#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/exp.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

// sum_c e^{x_c - maximum}. A sum of many equal terms in fp32 would lose digits with the
// vocabulary's size, so that pieces are summed in fp64.
template <typename T>
LASP_ALWAYS_INLINE inline double SumOfExponentials(int64_t count, const T* x, T maximum) {
  constexpr int64_t kPiece = 256;
  double total = 0;
  for (int64_t start = 0; start < count; start += kPiece) {
    const int64_t end = std::min(count, start + kPiece);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = start; c < end; ++c) {
      sum += Exp(x[c] - maximum);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

// NaN does not win a comparison, so that it is found in the sum of exponentials instead.
template <typename T>
LASP_ALWAYS_INLINE inline T Maximum(int64_t count, const T* x) {
  T maximum = x[0];
#pragma omp simd reduction(max : maximum)
  for (int64_t c = 0; c < count; ++c) {
    maximum = x[c] > maximum ? x[c] : maximum;
  }
  return maximum;
}

// One row; returns its loss.
template <typename T>
LASP_ALWAYS_INLINE inline double Row(const CrossEntropyArgs<T>& args, int64_t row) {
  const T* const logits = args.logits + row * args.logits_stride;
  T* const gradient =
      args.gradient == nullptr ? nullptr : args.gradient + row * args.gradient_stride;
  const int32_t label = args.labels[row];
  if (label == kIgnoredLabel) {
    if (gradient != nullptr) {
      std::fill_n(gradient, args.vocabulary, T{0});
    }
    return 0;
  }
  const T maximum = Maximum(args.vocabulary, logits);
  const double total = SumOfExponentials(args.vocabulary, logits, maximum);
  const double loss =
      std::log(total) + static_cast<double>(maximum) - static_cast<double>(logits[label]);
  if (gradient != nullptr) {
    const T scale = static_cast<T>(args.gradient_scale / total);
#pragma omp simd
    for (int64_t c = 0; c < args.vocabulary; ++c) {
      gradient[c] = scale * Exp(logits[c] - maximum);
    }
    gradient[label] -= static_cast<T>(args.gradient_scale);
  }
  return loss;
}

}  // namespace

template <typename T>
void CrossEntropy(const CrossEntropyArgs<T>& args) {
  std::vector<double> losses(static_cast<size_t>(args.rows));
  ParallelRanges(args.rows, 8 * args.vocabulary, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        losses[static_cast<size_t>(row)] = Row(args, row);
      }
    });
  });
  for (const double loss : losses) {
    *args.loss_sum += loss;
  }
}

template void CrossEntropy<float>(const CrossEntropyArgs<float>&);
template void CrossEntropy<double>(const CrossEntropyArgs<double>&);

}  // namespace lasp::kernels::cpu
