#include "kernels/cpu/simd.h"

#include <cstdlib>
#include <cstring>

namespace lasp::kernels::cpu {
namespace {

SimdLevel Detect() {
  const char* const limit = std::getenv("LASP_SIMD");  // NOLINT(concurrency-mt-unsafe)
  const bool baseline_only = limit != nullptr && std::strcmp(limit, "baseline") == 0;
  const bool avx2_only = limit != nullptr && std::strcmp(limit, "avx2") == 0;
  if (baseline_only || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return SimdLevel::kBaseline;
  }
  if (avx2_only || !__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw")) {
    return SimdLevel::kAvx2;
  }
  return SimdLevel::kAvx512;
}

}  // namespace

SimdLevel HostSimdLevel() {
  static const SimdLevel level = Detect();
  return level;
}

}  // namespace lasp::kernels::cpu
