// Times work on the GPU, and the copy bandwidth it is held against.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace lasp::bench {

// Ends the program where a call failed: a benchmark has nobody to report to but its reader.
inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
  }
}

// Milliseconds of one call of `body`, which issues work to the default stream: the median over
// `rounds` of the mean over `calls` back to back.
template <typename Body>
double GpuMilliseconds(const Body& body, int calls = 10, int rounds = 9) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Check(cudaEventCreate(&begin), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  for (int i = 0; i < 3; ++i) {
    body();
  }
  std::vector<float> times;
  times.reserve(rounds);
  for (int round = 0; round < rounds; ++round) {
    Check(cudaEventRecord(begin), "cudaEventRecord");
    for (int call = 0; call < calls; ++call) {
      body();
    }
    Check(cudaEventRecord(end), "cudaEventRecord");
    Check(cudaEventSynchronize(end), "the timed work");
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    times.push_back(milliseconds / static_cast<float>(calls));
  }
  Check(cudaEventDestroy(begin), "cudaEventDestroy");
  Check(cudaEventDestroy(end), "cudaEventDestroy");
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return static_cast<double>(times[static_cast<size_t>(rounds / 2)]);
}

// Memory of the device for the life of the program.
template <typename T>
T* GpuMemory(int64_t count) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(memory);
}

// Bytes a second of a device-to-device copy of 4 GiB, read and written ones together.
inline double CopyBandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  char* const from = GpuMemory<char>(kBytes);
  char* const to = GpuMemory<char>(kBytes);
  Check(cudaMemset(from, 0x3c, kBytes), "cudaMemset");
  const double milliseconds = GpuMilliseconds(
      [&] { Check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice), "copy"); }, 3, 5);
  Check(cudaFree(from), "cudaFree");
  Check(cudaFree(to), "cudaFree");
  return 2.0 * static_cast<double>(kBytes) / (milliseconds * 1e-3);
}

}  // namespace lasp::bench
