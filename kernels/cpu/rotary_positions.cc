#include "kernels/rotary_positions.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

template <typename T>
LASP_ALWAYS_INLINE inline void TurnHead(int64_t half, const T* cosine, const T* sine, T* x) {
  T* const y = x + half;
#pragma omp simd
  for (int64_t c = 0; c < half; ++c) {
    const T first = x[c];
    const T second = y[c];
    x[c] = first * cosine[c] - second * sine[c];
    y[c] = second * cosine[c] + first * sine[c];
  }
}

}  // namespace

template <typename T>
void TurnByPositions(const RotaryPositionsArgs<T>& args) {
  const int64_t half = args.head_size / 2;
  std::vector<double> frequencies(static_cast<size_t>(half));
  for (int64_t c = 0; c < half; ++c) {
    frequencies[static_cast<size_t>(c)] =
        std::pow(args.base, -2.0 * static_cast<double>(c) / static_cast<double>(args.head_size));
  }
  const double direction = args.inverse ? -1 : 1;
  // A sine costs as much as some tens of elements.
  const int64_t cost = half * (32 + 4 * args.sequences * args.heads);
  ParallelRanges(args.tokens, cost, [&](int64_t begin, int64_t end) {
    std::vector<T> cosine(frequencies.size());
    std::vector<T> sine(frequencies.size());
    for (int64_t token = begin; token < end; ++token) {
      const auto position = static_cast<double>(args.first_position + token);
      for (size_t c = 0; c < frequencies.size(); ++c) {
        const double angle = position * frequencies[c];
        cosine[c] = static_cast<T>(std::cos(angle));
        sine[c] = static_cast<T>(direction * std::sin(angle));
      }
      RunVectorised([&]() LASP_ALWAYS_INLINE {
        for (int64_t sequence = 0; sequence < args.sequences; ++sequence) {
          T* const row = args.x + (sequence * args.tokens + token) * args.token_stride;
          for (int64_t head = 0; head < args.heads; ++head) {
            TurnHead(half, cosine.data(), sine.data(), row + head * args.head_size);
          }
        }
      });
    }
  });
}

template void TurnByPositions<float>(const RotaryPositionsArgs<float>&);
template void TurnByPositions<double>(const RotaryPositionsArgs<double>&);

}  // namespace lasp::kernels::cpu
