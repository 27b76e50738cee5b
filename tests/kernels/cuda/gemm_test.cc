// Products by every algorithm that is offered, so that none that is measured can be wrong.
#include "kernels/cuda/gemm.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

constexpr int64_t kWorkspace = 32 << 20;

class GemmCuda : public lasp::testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      ASSERT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    }
  }

  void TearDown() override {
    if (handle_ != nullptr) {
      cublasLtDestroy(handle_);
    }
    GpuTest::TearDown();
  }

  std::vector<GemmAlgorithm> Candidates(const GemmShape& shape) {
    std::vector<GemmAlgorithm> algorithms(16);
    int count = 0;
    EXPECT_EQ(GemmCandidates(handle_, shape, kWorkspace, 16, algorithms.data(), &count),
              CUBLAS_STATUS_SUCCESS);
    algorithms.resize(static_cast<size_t>(count));
    return algorithms;
  }

  cublasLtHandle_t handle_ = nullptr;
};

// A matrix [rows, columns] inside rows of a greater stride, at an offset; what lies around it
// stays.
struct Matrix {
  int64_t rows;
  int64_t columns;
  int64_t stride;
  std::vector<double> values;  // with what lies around

  Matrix(int64_t row_count, int64_t column_count, int64_t padding, uint32_t seed)
      : rows(row_count),
        columns(column_count),
        stride(column_count + padding),
        values(RandomBf16(rows * stride, seed)) {}

  std::vector<double> Inside(const std::vector<double>& all) const {
    return ColumnsOf(all, stride, 0, columns);
  }
};

struct Case {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t padding;
};

template <typename C>
void Check(cublasLtHandle_t handle, GemmShape shape, const Case& c, float beta,
           const std::vector<GemmAlgorithm>& algorithms) {
  const Matrix a(shape.transpose_a ? c.k : c.m, shape.transpose_a ? c.m : c.k, c.padding, 1);
  const Matrix b(shape.transpose_b ? c.n : c.k, shape.transpose_b ? c.k : c.n, c.padding, 2);
  const Matrix start(c.m, c.n, c.padding, 3);
  std::vector<double> expected = reference::Gemm(shape.transpose_a, shape.transpose_b, c.m, c.n,
                                                 c.k, a.Inside(a.values), b.Inside(b.values));
  const std::vector<double> before = start.Inside(start.values);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = 0.5 * expected[i] + static_cast<double>(beta) * before[i];
  }
  const DeviceArray<Bf16> a_d(a.values);
  const DeviceArray<Bf16> b_d(b.values);
  const DeviceArray<char> workspace(kWorkspace);
  for (size_t i = 0; i < algorithms.size(); ++i) {
    std::vector<double> initial = start.values;
    if (beta == 0) {  // poison what is to be written
      for (size_t at = 0; at < initial.size(); ++at) {
        if (static_cast<int64_t>(at) % start.stride < c.n) {
          initial[at] = std::numeric_limits<double>::quiet_NaN();
        }
      }
    }
    const DeviceArray<C> c_d(initial);
    ASSERT_EQ(Gemm(handle, shape,
                   {.alpha = 0.5F, .a = a_d.data(), .b = b_d.data(), .beta = beta, .c = c_d.data()},
                   algorithms[i], workspace.data(), nullptr),
              CUBLAS_STATUS_SUCCESS);
    const std::vector<double> actual = c_d.Values();
    EXPECT_LE(RelativeRms(start.Inside(actual), expected), sizeof(C) == 2 ? kBf16Tolerance : 5e-6)
        << c.m << " x " << c.n << " x " << c.k << ", algorithm " << i;
    EXPECT_EQ(ColumnsOf(actual, start.stride, c.n, c.padding),
              ColumnsOf(start.values, start.stride, c.n, c.padding));
  }
}

TEST_F(GemmCuda, EveryCandidateOnViews) {
  for (const Case& c : {Case{128, 256, 64, 0}, Case{65, 33, 70, 3}, Case{64, 72, 520, 8},
                        Case{1, 8, 2048, 0}, Case{200, 136, 1000, 24}}) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        for (const bool fp32 : {false, true}) {
          for (const float beta : {0.0F, 1.0F}) {
            GemmShape shape = {.transpose_a = transpose_a,
                               .transpose_b = transpose_b,
                               .m = c.m,
                               .n = c.n,
                               .k = c.k,
                               .a_stride = (transpose_a ? c.m : c.k) + c.padding,
                               .b_stride = (transpose_b ? c.k : c.n) + c.padding,
                               .c_stride = c.n + c.padding,
                               .fp32_output = fp32,
                               .adds = beta != 0};
            shape.alignment = std::min({RowAlignment(nullptr, 2 * shape.a_stride),
                                        RowAlignment(nullptr, 2 * shape.b_stride),
                                        RowAlignment(nullptr, (fp32 ? 4 : 2) * shape.c_stride)});
            const std::vector<GemmAlgorithm> algorithms = Candidates(shape);
            if (fp32) {
              Check<float>(handle_, shape, c, beta, algorithms);
            } else {
              Check<Bf16>(handle_, shape, c, beta, algorithms);
            }
          }
        }
      }
    }
  }
}

TEST_F(GemmCuda, LeavesMultiprocessorsFree) {
  const Case c = {512, 512, 256, 0};
  const GemmShape shape = {.m = c.m,
                           .n = c.n,
                           .k = c.k,
                           .a_stride = c.k,
                           .b_stride = c.n,
                           .c_stride = c.n,
                           .multiprocessors = 100};
  Check<Bf16>(handle_, shape, c, 0, Candidates(shape));
}

// C has more than 2^32 elements, of which the last rows are checked; the rows before are zeros.
TEST_F(GemmCuda, MoreElementsThan32BitsCount) {
  const int64_t checked = 3;
  const Case c = {(int64_t{1} << 17) + checked, int64_t{1} << 15, 64, 0};
  const Matrix a(checked, c.k, 0, 1);
  const Matrix b(c.n, c.k, 0, 2);
  const DeviceArray<Bf16> a_d(c.m * c.k);
  ASSERT_EQ(cudaMemset(a_d.data(), 0, static_cast<size_t>(a_d.bytes())), cudaSuccess);
  cudaMemcpy(a_d.data() + (c.m - checked) * c.k, DeviceArray<Bf16>(a.values).data(),
             static_cast<size_t>(checked * c.k) * sizeof(Bf16), cudaMemcpyDeviceToDevice);
  const DeviceArray<Bf16> b_d(b.values);
  const DeviceArray<Bf16> c_d(c.m * c.n);
  const DeviceArray<char> workspace(kWorkspace);
  const GemmShape shape = {.transpose_b = true,
                           .m = c.m,
                           .n = c.n,
                           .k = c.k,
                           .a_stride = c.k,
                           .b_stride = c.k,
                           .c_stride = c.n};
  ASSERT_EQ(Gemm(handle_, shape, {.a = a_d.data(), .b = b_d.data(), .c = c_d.data()},
                 Candidates(shape).at(0), workspace.data(), nullptr),
            CUBLAS_STATUS_SUCCESS);
  std::vector<double> actual;
  for (const Bf16 value : c_d.Download((c.m - checked) * c.n, checked * c.n)) {
    actual.push_back(static_cast<double>(static_cast<float>(value)));
  }
  EXPECT_LE(
      RelativeRms(actual, reference::Gemm(false, true, checked, c.n, c.k, a.values, b.values)),
      kBf16Tolerance);
  EXPECT_EQ(static_cast<float>(c_d.Download((c.m - checked) * c.n - 1, 1)[0]), 0.0F);
}

}  // namespace
}  // namespace lasp::kernels::cuda
