// Tests that need GPUs: skipped where there are too few, failing instead where LASP_REQUIRE_GPU=1.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

namespace lasp::testing {

// 0 also where there is no driver.
inline int GpuCount() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

inline bool GpuIsRequired() {
  const char* value = std::getenv("LASP_REQUIRE_GPU");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

// Names the first error of work issued so far; a test that ends with it cannot miss a failed
// launch.
inline ::testing::AssertionResult GpuIsFine() {
  const cudaError_t error = cudaDeviceSynchronize();
  if (error == cudaSuccess) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << cudaGetErrorName(error);
}

// A fixture; also the base of typed and parametrised ones.
class GpuTest : public ::testing::Test {
 protected:
  explicit GpuTest(int gpus = 1) : gpus_(gpus) {}

  void SetUp() override {
    if (GpuCount() < gpus_) {
      if (GpuIsRequired()) {
        FAIL() << "LASP_REQUIRE_GPU=1, but there are " << GpuCount() << " GPUs of " << gpus_;
      }
      GTEST_SKIP() << "there are " << GpuCount() << " GPUs of " << gpus_;
    }
  }

  void TearDown() override {
    if (GpuCount() >= gpus_) {
      EXPECT_TRUE(GpuIsFine());
    }
  }

 private:
  const int gpus_;
};

}  // namespace lasp::testing
