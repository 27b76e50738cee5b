#include "kernels/threads.h"

#include <cblas.h>

#include <algorithm>

#include "kernels/cpu/openmp.h"

namespace lasp::kernels::cpu {

void SetThreads(int threads) {
  const int count = std::max(threads, 1);
  omp_set_num_threads(count);
  openblas_set_num_threads(count);
}

void SetCallerThreads(int threads) { omp_set_num_threads(std::max(threads, 1)); }

}  // namespace lasp::kernels::cpu
