// Runs a loop body compiled for the widest vectors this CPU has, so that one binary serves every
// x86-64 host. The body is a lambda marked LASP_ALWAYS_INLINE: inlined into a function with a
// target attribute, it is compiled for that target. What it calls must be inlined too to gain from
// it.
#pragma once

#define LASP_ALWAYS_INLINE __attribute__((always_inline))

namespace lasp::kernels::cpu {

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

// The level of this CPU; the environment variable LASP_SIMD (baseline, avx2) lowers it, for tests.
SimdLevel HostSimdLevel();

template <typename Body>
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"), noinline)) void RunAvx512(
    const Body& body) {
  body();
}

template <typename Body>
__attribute__((target("avx2,fma"), noinline)) void RunAvx2(const Body& body) {
  body();
}

template <typename Body>
void RunVectorised(const Body& body) {
  switch (HostSimdLevel()) {
    case SimdLevel::kAvx512:
      RunAvx512(body);
      return;
    case SimdLevel::kAvx2:
      RunAvx2(body);
      return;
    case SimdLevel::kBaseline:
      body();
      return;
  }
}

}  // namespace lasp::kernels::cpu
