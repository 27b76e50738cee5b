#include "kernels/global_norm.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

template <typename T>
LASP_ALWAYS_INLINE inline double Piece(const T* values, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(values[i]);
    sum += value * value;
  }
  return sum;
}

}  // namespace

template <typename T>
void SumOfSquares(const SumOfSquaresArgs<T>& args) {
  constexpr int64_t kPiece = 16384;
  const int64_t pieces = (args.count + kPiece - 1) / kPiece;
  std::vector<double> sums(static_cast<size_t>(pieces));
  ParallelRanges(pieces, kPiece, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t start = piece * kPiece;
        sums[static_cast<size_t>(piece)] =
            Piece(args.values + start, std::min(kPiece, args.count - start));
      }
    });
  });
  for (const double sum : sums) {
    *args.sum += sum;
  }
}

template void SumOfSquares<float>(const SumOfSquaresArgs<float>&);
template void SumOfSquares<double>(const SumOfSquaresArgs<double>&);

}  // namespace lasp::kernels::cpu
