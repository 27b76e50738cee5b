// What a Linear Transformer's layers add to linear attention, against the CPU's kernels in fp64
// from the same inputs.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/attention_normaliser.h"
#include "kernels/cuda/elu_plus_one.h"
#include "kernels/cuda/sinusoidal_positions.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class LinearTransformerCuda : public lasp::testing::GpuTest {};

TEST_F(LinearTransformerCuda, EluPlusOneOnAColumnRange) {
  constexpr int64_t kRows = 67;
  for (const int64_t width : {1, 3, 8, 63, 64, 1000, 4096}) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomBf16(kRows * stride, 1, 3.0);
    const std::vector<double> z = ColumnsOf(packed, stride, width, width);
    const std::vector<double> d_y = RandomBf16(kRows * width, 2);
    std::vector<double> y(z.size());
    std::vector<double> d_z(z.size());
    cpu::EluPlusOneForward<double>({kRows, width, z.data(), width, y.data(), width});
    cpu::EluPlusOneBackward<double>(
        {kRows, width, z.data(), width, d_y.data(), width, d_z.data(), width});
    const DeviceArray<Bf16> packed_d(packed);
    const DeviceArray<Bf16> y_d(kRows * width);
    const DeviceArray<Bf16> gradient(d_y);  // in place
    ASSERT_EQ(EluPlusOneForward({kRows, width, packed_d.data() + width, stride, y_d.data(), width},
                                nullptr),
              cudaSuccess);
    ASSERT_EQ(EluPlusOneBackward({kRows, width, packed_d.data() + width, stride, gradient.data(),
                                  width, gradient.data(), width},
                                 nullptr),
              cudaSuccess);
    EXPECT_LE(RelativeRms(y_d.Values(), y), kBf16Tolerance) << width;
    EXPECT_LE(RelativeRms(gradient.Values(), d_z), kBf16Tolerance) << width;
  }
}

TEST_F(LinearTransformerCuda, EluPlusOneAtTheEndsOfTheRange) {
  const double infinity = std::numeric_limits<double>::infinity();
  const DeviceArray<Bf16> x(RoundedToBf16({-infinity, -1000, 0, 1000, infinity}));
  const DeviceArray<Bf16> gradient(std::vector<double>{1, 1, 1, 1, 1});
  const DeviceArray<Bf16> y(5);
  ASSERT_EQ(EluPlusOneForward({1, 5, x.data(), 5, y.data(), 5}, nullptr), cudaSuccess);
  ASSERT_EQ(
      EluPlusOneBackward({1, 5, x.data(), 5, gradient.data(), 5, gradient.data(), 5}, nullptr),
      cudaSuccess);
  EXPECT_EQ(y.Values(), RoundedToBf16({0, 0, 1, 1001, infinity}));
  EXPECT_EQ(gradient.Values(), (std::vector<double>{0, 0, 1, 1, 1}));
}

TEST_F(LinearTransformerCuda, PositionsAreTheCpusHoweverFarOut) {
  constexpr int64_t kSequences = 2;
  constexpr int64_t kTokens = 130;
  for (const int64_t width : {1, 7, 64, 2048}) {
    for (const int64_t first : {int64_t{0}, int64_t{63}, int64_t{1} << 26}) {
      std::vector<double> x = RandomBf16(kSequences * kTokens * width, 1);
      const DeviceArray<Bf16> x_d(x);
      ASSERT_EQ(AddSinusoidalPositions({kSequences, kTokens, width, first, x_d.data()}, nullptr),
                cudaSuccess);
      cpu::AddSinusoidalPositions<double>({kSequences, kTokens, width, first, x.data()});
      EXPECT_LE(RelativeRms(x_d.Values(), x), kBf16Tolerance) << width << " from " << first;
    }
  }
}

// A layer's queries, keys and so on in rows with a gap behind each, as in a packed projection.
struct Layer {
  explicit Layer(const LinearAttentionShape& its_shape)
      : shape(its_shape),
        width(its_shape.heads * its_shape.key_size),
        q(Features(1)),
        k(Features(2)),
        output(RandomBf16(Rows() * width, 3, 100.0)),
        output_gradient(RandomBf16(Rows() * width, 4)),
        q_gradient(RandomBf16(Rows() * width, 5)),
        k_gradient(RandomBf16(Rows() * width, 6)) {}

  int64_t Rows() const { return shape.batch * shape.tokens; }

  int64_t Sums() const { return shape.batch * shape.heads * shape.key_size; }

  template <typename T>
  HeadsView<T> View(T* data) const {
    return {data, shape.tokens * width, width, shape.key_size};
  }

  HeadsView<double> Of(std::vector<double>& values) const { return View(values.data()); }

  HeadsView<Bf16> Of(const DeviceArray<Bf16>& values) const { return View(values.data()); }

  LinearAttentionShape shape;
  int64_t width;
  std::vector<double> q, k, output, output_gradient, q_gradient, k_gradient;

 private:
  std::vector<double> Features(uint32_t seed) const {
    std::vector<double> values = RandomBf16(Rows() * width, seed);
    for (double& value : values) {
      value = std::abs(value);
    }
    return values;
  }
};

// `document_starts`: of each sequence, alike.
void ExpectNormaliserOfTheCpu(LinearAttentionShape shape, bool begins,
                              const std::vector<int64_t>& document_starts = {}) {
  const int64_t words = BlockCount(shape);
  std::vector<uint64_t> marks(static_cast<size_t>(shape.batch * words));
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    for (const int64_t start : document_starts) {
      marks[static_cast<size_t>(batch * words + start / 64)] |= uint64_t{1} << (start % 64);
    }
  }
  const DeviceArray<uint64_t> marks_d(marks);
  shape.document_marks = document_starts.empty() ? nullptr : marks.data();
  Layer layer(shape);
  LinearAttentionShape on_gpu = shape;
  on_gpu.document_marks = document_starts.empty() ? nullptr : marks_d.data();
  const DeviceArray<Bf16> q(layer.q);
  const DeviceArray<Bf16> k(layer.k);
  const DeviceArray<Bf16> output(layer.output);
  const DeviceArray<Bf16> gradient(layer.output_gradient);
  const DeviceArray<Bf16> q_gradient(layer.q_gradient);
  const DeviceArray<Bf16> k_gradient(layer.k_gradient);
  const DeviceArray<float> workspace(NormaliserWorkspaceElements(shape));
  const DeviceArray<float> denominators(layer.Rows() * shape.heads);
  const DeviceArray<float> key_sum(layer.Sums());
  const DeviceArray<float> query_sum(layer.Sums());
  std::vector<double> in = RandomValues<float>(layer.Sums(), 7, 50.0);
  for (double& value : in) {
    value = std::abs(value);
  }
  const std::vector<double> gradient_in = RandomValues<float>(layer.Sums(), 8);
  const DeviceArray<float> in_d(in);
  const DeviceArray<float> gradient_in_d(gradient_in);

  std::vector<double> sums(static_cast<size_t>(layer.Sums()));
  std::vector<double> denominators_c(static_cast<size_t>(layer.Rows() * shape.heads));
  cpu::KeySum<double>({shape, layer.Of(layer.k), sums.data()});
  ASSERT_EQ(KeySum({on_gpu, layer.Of(k), workspace.data(), key_sum.data()}, nullptr), cudaSuccess);
  EXPECT_LE(RelativeRms(key_sum.Values(), sums), kFp32Tolerance);

  cpu::Normalise<double>({shape, layer.Of(layer.q), layer.Of(layer.k), begins ? nullptr : in.data(),
                          layer.Of(layer.output), denominators_c.data()});
  ASSERT_EQ(Normalise({on_gpu, layer.Of(q), layer.Of(k), begins ? nullptr : in_d.data(),
                       layer.Of(output), workspace.data(), denominators.data()},
                      nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(denominators.Values(), denominators_c), kFp32Tolerance);
  EXPECT_LE(RelativeRms(output.Values(), layer.output), kBf16Tolerance);

  // What comes next takes the output as the GPU rounded it.
  layer.output = output.Values();
  cpu::SplitGradient<double>(
      {shape, layer.Of(layer.output), layer.Of(layer.output_gradient), denominators_c.data()});
  ASSERT_EQ(
      SplitGradient({on_gpu, layer.Of(output), layer.Of(gradient), denominators.data()}, nullptr),
      cudaSuccess);
  EXPECT_LE(RelativeRms(gradient.Values(), layer.output_gradient), kBf16Tolerance);
  EXPECT_LE(RelativeRms(denominators.Values(), denominators_c), kFp32Tolerance);

  cpu::QuerySum<double>({shape, layer.Of(layer.q), denominators_c.data(), sums.data()});
  ASSERT_EQ(QuerySum({on_gpu, layer.Of(q), denominators.data(), workspace.data(), query_sum.data()},
                     nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(query_sum.Values(), sums), 10 * kFp32Tolerance);

  cpu::AddQueryGradients<double>({shape, layer.Of(layer.k), denominators_c.data(),
                                  begins ? nullptr : in.data(), layer.Of(layer.q_gradient)});
  ASSERT_EQ(
      AddQueryGradients({on_gpu, layer.Of(k), denominators.data(), begins ? nullptr : in_d.data(),
                         workspace.data(), layer.Of(q_gradient)},
                        nullptr),
      cudaSuccess);
  EXPECT_LE(RelativeRms(q_gradient.Values(), layer.q_gradient), kBf16Tolerance);

  cpu::AddKeyGradients<double>({shape, layer.Of(layer.q), denominators_c.data(),
                                begins ? nullptr : gradient_in.data(), layer.Of(layer.k_gradient)});
  ASSERT_EQ(AddKeyGradients(
                {on_gpu, layer.Of(q), denominators.data(), begins ? nullptr : gradient_in_d.data(),
                 workspace.data(), layer.Of(k_gradient)},
                nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(k_gradient.Values(), layer.k_gradient), kBf16Tolerance);

  // The keys of another slice: the gradient of the sum alone.
  std::vector<double> others = layer.k;
  const DeviceArray<Bf16> others_d(layer.k);
  cpu::AddKeyGradients<double>({shape, {}, nullptr, gradient_in.data(), layer.Of(others)});
  ASSERT_EQ(AddKeyGradients(
                {on_gpu, {}, nullptr, gradient_in_d.data(), workspace.data(), layer.Of(others_d)},
                nullptr),
            cudaSuccess);
  EXPECT_LE(RelativeRms(others_d.Values(), others), kBf16Tolerance);
}

// One tile, one segment, several of several tiles, with rests.
TEST_F(LinearTransformerCuda, TheNormaliserIsTheCpus) {
  for (const int64_t tokens : {1, 31, 32, 100, 2049, 5000}) {
    for (const int64_t size : {8, 72, 128}) {
      for (const bool begins : {true, false}) {
        SCOPED_TRACE(::testing::Message() << tokens << " tokens of " << size << ", " << begins);
        ExpectNormaliserOfTheCpu({.batch = 2,
                                  .tokens = tokens,
                                  .heads = 3,
                                  .key_size = size,
                                  .value_size = size,
                                  .slopes = nullptr,
                                  .theta = nullptr},
                                 begins);
      }
    }
  }
}

// In a segment's middle, at its border, several in one and none in the next, a document of one
// token.
TEST_F(LinearTransformerCuda, NoSumPassesADocumentsStart) {
  const std::vector<std::vector<int64_t>> layouts = {
      {0}, {1}, {63}, {64}, {100, 101}, {4999}, {70, 128, 192, 200, 3000, 3001}};
  for (const std::vector<int64_t>& starts : layouts) {
    for (const bool begins : {true, false}) {
      SCOPED_TRACE(::testing::Message() << "the first at " << starts[0] << ", " << begins);
      ExpectNormaliserOfTheCpu({.batch = 2,
                                .tokens = 5000,
                                .heads = 3,
                                .key_size = 16,
                                .value_size = 16,
                                .slopes = nullptr,
                                .theta = nullptr},
                               begins, starts);
    }
  }
}

TEST_F(LinearTransformerCuda, AStateHopsOverSlicesWithoutStartsOnly) {
  const std::vector<uint64_t> marks = {0, 0, 0, 1};
  const DeviceArray<uint64_t> marks_d(marks);
  const LinearAttentionShape shape{.batch = 2,
                                   .tokens = 100,
                                   .heads = 3,
                                   .key_size = 8,
                                   .value_size = 16,
                                   .slopes = nullptr,
                                   .theta = nullptr,
                                   .document_marks = marks_d.data()};
  constexpr int64_t kProducts = int64_t{3} * 8 * 16;
  constexpr int64_t kSums = int64_t{3} * 8;
  const int64_t count = 2 * (kProducts + kSums);
  const std::vector<double> in = RandomValues<float>(count, 1);
  const std::vector<double> local = RandomValues<float>(count, 2);
  const DeviceArray<float> in_d(in);
  const DeviceArray<float> local_d(local);
  ASSERT_EQ(AddNormalisedStates({.shape = shape,
                                 .count = count,
                                 .state_in = in_d.data(),
                                 .local = local_d.data(),
                                 .state_out = local_d.data()},
                                nullptr),
            cudaSuccess);
  const std::vector<double> out = local_d.Values();
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool second = i < 2 * kProducts ? i >= kProducts : i - 2 * kProducts >= kSums;
    const auto expected = static_cast<float>(local[at] + (second ? 0.0 : in[at]));
    EXPECT_FLOAT_EQ(static_cast<float>(out[at]), expected) << i;
  }
}

TEST_F(LinearTransformerCuda, TheNormaliserRefusesSizesItDoesNotTake) {
  const DeviceArray<Bf16> k(1024);
  const DeviceArray<float> sum(1024);
  for (const int64_t size : {0, 4, 136}) {
    const LinearAttentionShape shape = {.batch = 1,
                                        .tokens = 1,
                                        .heads = 1,
                                        .key_size = size,
                                        .value_size = size,
                                        .slopes = nullptr,
                                        .theta = nullptr};
    EXPECT_EQ(KeySum({shape, {k.data(), size, size, size}, sum.data(), sum.data()}, nullptr),
              cudaErrorInvalidValue)
        << size;
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
