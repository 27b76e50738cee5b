// An array in device memory for tests: poisoned with NaNs, and fenced by bytes that nobody may
// write.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace lasp::testing {

template <typename T>
class DeviceArray {
 public:
  // Every byte 0xff: NaN as bf16, float and double, -1 as an integer.
  explicit DeviceArray(int64_t count) : count_(count) {
    const auto whole = static_cast<size_t>(bytes()) + 2 * kFence;
    const cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&memory_), whole);
    EXPECT_EQ(error, cudaSuccess) << whole << " bytes";
    if (error != cudaSuccess) {
      (void)cudaGetLastError();
      memory_ = nullptr;
      return;
    }
    EXPECT_EQ(cudaMemset(memory_, 0xff, whole), cudaSuccess);
  }

  // The values, each rounded to T.
  template <typename Value>
  explicit DeviceArray(const std::vector<Value>& values)
      : DeviceArray(static_cast<int64_t>(values.size())) {
    std::vector<T> rounded;
    rounded.reserve(values.size());
    for (const Value& value : values) {
      rounded.push_back(static_cast<T>(value));
    }
    Upload(0, rounded);
  }

  DeviceArray(DeviceArray&& other) noexcept
      : count_(other.count_), memory_(std::exchange(other.memory_, nullptr)) {}

  DeviceArray& operator=(DeviceArray&&) = delete;

  ~DeviceArray() { (void)cudaFree(memory_); }

  T* data() const { return reinterpret_cast<T*>(memory_ + kFence); }

  int64_t count() const { return count_; }

  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }

  void Upload(int64_t first, const std::vector<T>& values) {
    EXPECT_EQ(cudaMemcpy(data() + first, values.data(), values.size() * sizeof(T),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }

  // `count` values from `first` on, after all issued work. Fails where a fence was written.
  std::vector<T> Download(int64_t first, int64_t count) const {
    std::vector<T> values(static_cast<size_t>(count));
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), data() + first, values.size() * sizeof(T),
                         cudaMemcpyDeviceToHost),
              cudaSuccess);
    EXPECT_TRUE(FenceIsWhole(0)) << "written before the array";
    EXPECT_TRUE(FenceIsWhole(kFence + static_cast<size_t>(bytes()))) << "written past the array";
    return values;
  }

  std::vector<T> Download() const { return Download(0, count_); }

  // As double, to compare with an oracle.
  std::vector<double> Values() const {
    std::vector<double> values;
    values.reserve(static_cast<size_t>(count_));
    for (const T value : Download()) {
      values.push_back(static_cast<double>(static_cast<Wide>(value)));
    }
    return values;
  }

 private:
  // Bf16 converts to float only.
  using Wide = std::conditional_t<sizeof(T) == 2, float, T>;
  static constexpr size_t kFence = 256;

  bool FenceIsWhole(size_t at) const {
    std::vector<unsigned char> fence(kFence);
    EXPECT_EQ(cudaMemcpy(fence.data(), memory_ + at, kFence, cudaMemcpyDeviceToHost), cudaSuccess);
    for (const unsigned char byte : fence) {
      if (byte != 0xff) {
        return false;
      }
    }
    return true;
  }

  const int64_t count_;
  unsigned char* memory_ = nullptr;
};

}  // namespace lasp::testing
