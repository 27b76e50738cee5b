// Splits a range over the OpenMP threads, in contiguous pieces fixed by the thread count.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/openmp.h"

namespace lasp::kernels::cpu {

// Calls body(begin, end) on pieces of [0, count), one a thread; on the caller alone where the work
// (count * cost, in elements touched) is too small to pay for waking the others.
template <typename Body>
void ParallelRanges(int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kWorthWaking = 32768;
  const int64_t threads =
      std::min<int64_t>(omp_get_max_threads(), std::max<int64_t>(1, count * cost / kWorthWaking));
  if (threads <= 1 || count <= 1) {
    if (count > 0) {
      body(int64_t{0}, count);
    }
    return;
  }
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    const int64_t thread = omp_get_thread_num();
    const int64_t team = omp_get_num_threads();
    const int64_t begin = count * thread / team;
    const int64_t end = count * (thread + 1) / team;
    if (begin < end) {
      body(begin, end);
    }
  }
}

}  // namespace lasp::kernels::cpu
