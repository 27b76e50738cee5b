// Each operation once on more than 2^32 elements: the last rows are checked, which a 32-bit index
// would miss. What is not checked holds one value throughout.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gated_rms_norm.h"
#include "kernels/cuda/global_norm.h"
#include "kernels/cuda/glu.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/silu.h"
#include "kernels/cuda/vector_ops.h"
#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

constexpr int64_t kElements = int64_t{1} << 32;
constexpr int64_t kTail = 3;  // rows checked
constexpr int64_t kGigabyte = 1'000'000'000;

class LargeCuda : public lasp::testing::GpuTest {
 protected:
  static bool HasMemory(int64_t gigabytes) {
    size_t free = 0;
    size_t total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess &&
           static_cast<int64_t>(free) >= gigabytes * kGigabyte;
  }
};

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): skips the calling test
#define LASP_NEEDS_GIGABYTES(gigabytes)                         \
  if (!HasMemory(gigabytes)) {                                  \
    GTEST_SKIP() << "needs " << (gigabytes) << " GB of memory"; \
  }

// Rows of small positive values, of which the last kTail are `tail`.
template <typename T = Bf16>
DeviceArray<T> Rows(int64_t rows, int64_t width, const std::vector<double>& tail) {
  DeviceArray<T> array(rows * width);
  EXPECT_EQ(cudaMemset(array.data(), 0x3c, static_cast<size_t>(array.bytes())), cudaSuccess);
  array.Upload((rows - kTail) * width, Converted<T>(tail));
  return array;
}

template <typename T>
std::vector<double> Tail(const DeviceArray<T>& array, int64_t width) {
  std::vector<double> values;
  for (const T value : array.Download(array.count() - kTail * width, kTail * width)) {
    values.push_back(static_cast<double>(static_cast<float>(value)));
  }
  return values;
}

TEST_F(LargeCuda, RmsNorm) {
  LASP_NEEDS_GIGABYTES(36);
  const int64_t width = 2048;
  const int64_t rows = kElements / width + kTail;
  const std::vector<double> x = RandomBf16(kTail * width, 1);
  const std::vector<double> addend = RandomBf16(kTail * width, 2);
  const std::vector<double> expected_sum = RoundedToBf16(SumOf(x, addend));
  const DeviceArray<Bf16> x_d = Rows(rows, width, x);
  const DeviceArray<Bf16> addend_d = Rows(rows, width, addend);
  const DeviceArray<Bf16> sum(rows * width);
  const DeviceArray<Bf16> output(rows * width);
  const DeviceArray<float> inverse_rms(rows);
  ASSERT_EQ(RmsNormForward({.rows = rows,
                            .width = width,
                            .input = x_d.data(),
                            .addend = addend_d.data(),
                            .sum = sum.data(),
                            .output = output.data(),
                            .inverse_rms = inverse_rms.data()},
                           nullptr),
            cudaSuccess);
  EXPECT_EQ(Tail(sum, width), expected_sum);
  const std::vector<double> normed = reference::RmsNormForward(width, expected_sum);
  EXPECT_LE(RelativeRms(Tail(output, width), normed), kBf16Tolerance);
  // The gradient of the output is the output.
  const std::vector<double> d_y = Tail(output, width);
  ASSERT_EQ(RmsNormBackward({.rows = rows,
                             .width = width,
                             .input = sum.data(),
                             .inverse_rms = inverse_rms.data(),
                             .output_gradient = output.data(),
                             .addend = addend_d.data(),
                             .input_gradient = x_d.data()},
                            nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(Tail(x_d, width),
                        SumOf(reference::RmsNormBackward(width, expected_sum, d_y), addend)),
            kBf16Tolerance);
}

TEST_F(LargeCuda, GatedRmsNormAndSiluOnPackedRows) {
  LASP_NEEDS_GIGABYTES(25);
  const int64_t width = 2048;
  const int64_t stride = 4 * width;
  const int64_t rows = kElements / stride + kTail;
  const std::vector<double> packed = RandomBf16(kTail * stride, 1);
  const std::vector<double> gate = ColumnsOf(packed, stride, 3 * width, width);
  const std::vector<double> o = RandomBf16(kTail * width, 2);
  const std::vector<double> d_y = RandomBf16(kTail * width, 3);
  const std::vector<double> normed = reference::RmsNormForward(width, o);
  const DeviceArray<Bf16> packed_d = Rows(rows, stride, packed);
  const DeviceArray<Bf16> packed_gradient(rows * stride);
  const DeviceArray<Bf16> o_d = Rows(rows, width, o);
  const DeviceArray<Bf16> d_o = Rows(rows, width, d_y);
  const DeviceArray<Bf16> y(rows * width);
  const DeviceArray<float> inverse_rms(rows);
  ASSERT_EQ(GatedRmsNormForward({.rows = rows,
                                 .width = width,
                                 .input = o_d.data(),
                                 .gate = packed_d.data() + 3 * width,
                                 .gate_stride = stride,
                                 .output = y.data(),
                                 .inverse_rms = inverse_rms.data()},
                                nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(Tail(y, width), ProductOf(gate, normed)), kBf16Tolerance);
  ASSERT_EQ(GatedRmsNormBackward({.rows = rows,
                                  .width = width,
                                  .input = o_d.data(),
                                  .gate = packed_d.data() + 3 * width,
                                  .gate_stride = stride,
                                  .inverse_rms = inverse_rms.data(),
                                  .output_gradient = d_o.data(),
                                  .input_gradient = d_o.data(),
                                  .gate_gradient = packed_gradient.data() + 3 * width,
                                  .gate_gradient_stride = stride},
                                 nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(ColumnsOf(Tail(packed_gradient, stride), stride, 3 * width, width),
                        ProductOf(d_y, normed)),
            kBf16Tolerance);
  EXPECT_LE(
      RelativeRms(Tail(d_o, width), reference::RmsNormBackward(width, o, ProductOf(d_y, gate))),
      kBf16Tolerance);

  const std::vector<double> z = ColumnsOf(packed, stride, 0, width);
  std::vector<double> expected;
  expected.reserve(z.size());
  std::vector<double> expected_gradient;
  for (size_t i = 0; i < z.size(); ++i) {
    expected.push_back(reference::Silu(z[i]));
    expected_gradient.push_back(o[i] * reference::SiluGradient(z[i]));
  }
  ASSERT_EQ(SiluForward({rows, width, packed_d.data(), stride, y.data(), width}, nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(Tail(y, width), expected), kBf16Tolerance);
  ASSERT_EQ(SiluBackward({rows, width, packed_d.data(), stride, o_d.data(), width,
                          packed_gradient.data(), stride},
                         nullptr),
            cudaSuccess);
  EXPECT_LE(
      RelativeRms(ColumnsOf(Tail(packed_gradient, stride), stride, 0, width), expected_gradient),
      kBf16Tolerance);
}

TEST_F(LargeCuda, GluInPlace) {
  LASP_NEEDS_GIGABYTES(15);
  const int64_t width = 5632;
  const int64_t stride = 2 * width;
  const int64_t rows = kElements / stride + kTail;
  const std::vector<double> packed = RandomBf16(kTail * stride, 1);
  const std::vector<double> a = ColumnsOf(packed, stride, 0, width);
  const std::vector<double> b = ColumnsOf(packed, stride, width, width);
  const DeviceArray<Bf16> packed_d = Rows(rows, stride, packed);
  const DeviceArray<Bf16> y(rows * width);
  Bf16* const first = packed_d.data();
  Bf16* const second = first + width;
  ASSERT_EQ(GluForward({rows, width, first, stride, second, stride, y.data()}, nullptr),
            cudaSuccess);
  const std::vector<double> d_y = RoundedToBf16(ProductOf(a, b));
  EXPECT_EQ(Tail(y, width), d_y);
  ASSERT_EQ(GluBackward({rows, width, first, stride, second, stride, y.data(), first, stride,
                         second, stride},
                        nullptr),
            cudaSuccess);
  const std::vector<double> gradient = Tail(packed_d, stride);
  EXPECT_EQ(ColumnsOf(gradient, stride, 0, width), RoundedToBf16(ProductOf(d_y, b)));
  EXPECT_EQ(ColumnsOf(gradient, stride, width, width), RoundedToBf16(ProductOf(d_y, a)));
}

TEST_F(LargeCuda, EmbeddingOfManyTokens) {
  LASP_NEEDS_GIGABYTES(20);
  const int64_t width = 2048;
  const int64_t tokens = kElements / width + kTail;
  std::vector<int32_t> ids(static_cast<size_t>(tokens), 3);
  ids[ids.size() - 3] = 0;
  ids[ids.size() - 2] = 8;
  ids[ids.size() - 1] = 8;
  const std::vector<double> table = RandomBf16(9 * width, 1);
  const std::vector<double> d_x = RandomBf16(kTail * width, 2);
  const DeviceArray<int32_t> ids_d(ids);
  const DeviceArray<Bf16> table_d(table);
  const DeviceArray<Bf16> x(tokens * width);
  ASSERT_EQ(EmbeddingForward({tokens, width, 1, ids_d.data(), table_d.data(), x.data()}, nullptr),
            cudaSuccess);
  std::vector<double> expected(table.begin(), table.begin() + width);
  for (int i = 0; i < 2; ++i) {
    expected.insert(expected.end(), table.begin() + 8 * width, table.end());
  }
  EXPECT_EQ(Tail(x, width), expected);
  const DeviceArray<Bf16> d_x_d = Rows(tokens, width, d_x);
  const DeviceArray<float> gradient(std::vector<float>(static_cast<size_t>(9 * width)));
  const DeviceArray<char> workspace(EmbeddingBackwardWorkspaceBytes(tokens, width));
  ASSERT_EQ(EmbeddingBackward({tokens, width, 1, ids_d.data(), d_x_d.data(), gradient.data()}, 9,
                              workspace.data(), nullptr),
            cudaSuccess);
  const std::vector<double> actual = gradient.Values();
  const auto one = static_cast<double>(static_cast<float>(d_x_d.Download(0, 1)[0]));
  const auto w = static_cast<size_t>(width);
  for (size_t c = 0; c < w; ++c) {
    ASSERT_EQ(actual[c], d_x[c]);
    ASSERT_NEAR(actual[8 * w + c], d_x[w + c] + d_x[2 * w + c], 1e-6);
    // Two million equal values.
    ASSERT_NEAR(actual[3 * w + c] / (static_cast<double>(tokens - kTail) * one), 1, 1e-6);
  }
}

TEST_F(LargeCuda, CrossEntropyInPlace) {
  LASP_NEEDS_GIGABYTES(10);
  const int64_t vocabulary = 64000;
  const int64_t rows = kElements / vocabulary + kTail;
  const std::vector<double> logits = RandomBf16(kTail * vocabulary, 1, 4.0);
  std::vector<int32_t> labels(static_cast<size_t>(rows), 5);
  labels[labels.size() - 2] = static_cast<int32_t>(vocabulary) - 1;
  const reference::CrossEntropyResult expected = reference::CrossEntropy(
      vocabulary, logits, std::vector<int32_t>(labels.end() - kTail, labels.end()));
  const DeviceArray<Bf16> logits_d = Rows(rows, vocabulary, logits);
  const DeviceArray<int32_t> labels_d(labels);
  const DeviceArray<double> loss(std::vector<double>{0});
  const DeviceArray<char> workspace(CrossEntropyWorkspaceBytes(rows));
  ASSERT_EQ(CrossEntropy({.rows = rows,
                          .vocabulary = vocabulary,
                          .logits = logits_d.data(),
                          .logits_stride = vocabulary,
                          .labels = labels_d.data(),
                          .gradient_scale = 1,
                          .gradient = logits_d.data(),
                          .gradient_stride = vocabulary,
                          .loss_sum = loss.data()},
                         workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(Tail(logits_d, vocabulary), expected.gradient), kBf16Tolerance);
  const double all = expected.loss_sum + static_cast<double>(rows - kTail) * std::log(64000.0);
  EXPECT_NEAR(loss.Values()[0], all, 1e-6 * all);
}

TEST_F(LargeCuda, VectorOps) {
  LASP_NEEDS_GIGABYTES(45);
  const int64_t count = kElements + kTail;
  const DeviceArray<float> x(count);
  const DeviceArray<float> y(count);
  const DeviceArray<Bf16> copy(count);
  ASSERT_EQ(Fill<float>(count, 2, x.data(), nullptr), cudaSuccess);
  ASSERT_EQ(Fill<float>(count, 1, y.data(), nullptr), cudaSuccess);
  ASSERT_EQ(Axpy<float>(count, 3, x.data(), y.data(), nullptr), cudaSuccess);
  ASSERT_EQ((Convert<float, Bf16>(count, y.data(), copy.data(), nullptr)), cudaSuccess);
  EXPECT_EQ(Tail(copy, 1), (std::vector<double>{7, 7, 7}));
}

TEST_F(LargeCuda, AdamWAndGlobalNorm) {
  LASP_NEEDS_GIGABYTES(80);
  const int64_t count = kElements + kTail;
  const std::vector<double> p = RandomValues<float>(kTail, 1);
  const std::vector<double> g = {1000, 2000, 3000};
  const DeviceArray<float> parameter = Rows<float>(count, 1, p);
  const DeviceArray<float> gradient = Rows<float>(count, 1, g);
  const DeviceArray<float> first(count);
  const DeviceArray<float> second(count);
  const DeviceArray<Bf16> copy(count);
  ASSERT_EQ(cudaMemset(first.data(), 0, static_cast<size_t>(first.bytes())), cudaSuccess);
  ASSERT_EQ(cudaMemset(second.data(), 0, static_cast<size_t>(second.bytes())), cudaSuccess);
  const DeviceArray<double> sum(std::vector<double>{0});
  const DeviceArray<char> workspace(SumOfSquaresWorkspaceBytes());
  ASSERT_EQ(SumOfSquares({count, gradient.data(), sum.data()}, workspace.data(), nullptr),
            cudaSuccess);
  const auto one = static_cast<double>(gradient.Download(0, 1)[0]);
  const double expected_sum = static_cast<double>(kElements) * one * one + 14e6;
  EXPECT_NEAR(sum.Values()[0], expected_sum, 1e-9 * expected_sum);
  const DeviceArray<UpdateControl> control(std::vector<UpdateControl>{{.learning_rate = 1e-2}});
  ASSERT_EQ(
      JudgeUpdate({.loss = sum.data(), .sum_of_squares = sum.data(), .control = control.data()},
                  nullptr),
      cudaSuccess);
  const AdamWTensor<float> tensor = {.count = count,
                                     .parameter = parameter.data(),
                                     .gradient = gradient.data(),
                                     .first_moment = first.data(),
                                     .second_moment = second.data(),
                                     .copy = copy.data(),
                                     .weight_decay = 0.1F};
  ASSERT_EQ(
      AdamW<float>({.tensors = &tensor, .tensor_count = 1, .control = control.data()}, nullptr),
      cudaSuccess);
  const std::vector<double> expected = reference::AdamW(p, {g}, 1e-2, 0.9, 0.95, 1e-8, 0.1, 1.0);
  EXPECT_LE(RelativeRms(Tail(parameter, 1), expected), kFp32Tolerance);
  EXPECT_EQ(Tail(copy, 1), RoundedToBf16(Tail(parameter, 1)));
}

}  // namespace
}  // namespace lasp::kernels::cuda
