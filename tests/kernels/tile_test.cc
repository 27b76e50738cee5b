// The tiles that linear attention is built of, at every vector level this CPU has (the environment
// variable LASP_SIMD lowers it; tests/kernels/CMakeLists.txt runs this program once a level).
#include "kernels/cpu/tile.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/cpu/exp.h"
#include "kernels/reference/operations.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels::cpu {
namespace {

template <typename T>
class Tile : public ::testing::Test {
 protected:
  static constexpr double kTolerance = std::numeric_limits<T>::digits > 30 ? 1e-14 : 3e-6;

  // A tile of these values; everything that is not a value is poison, if a harmless one.
  static std::vector<T> Of(int64_t rows, int64_t width, const std::vector<double>& values) {
    const std::vector<T> source = Converted<T>(values);
    std::vector<T> tile(static_cast<size_t>(TileElements<T>(rows, width)), T{1000});
    LoadTile(rows, width, source.data(), width, tile.data());
    return tile;
  }

  static std::vector<T> ValuesOf(int64_t rows, int64_t width, const std::vector<T>& tile) {
    std::vector<T> values(static_cast<size_t>(rows * width));
    StoreTile(rows, width, tile.data(), false, values.data(), width);
    return values;
  }
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Tile, Types);

TYPED_TEST(Tile, ProductsOfAnyShape) {
  using T = TypeParam;
  for (const int64_t m : {1, 3, 8, 13, 64, 128}) {
    for (const int64_t n : {1, 31, 33, 64}) {
      for (const int64_t k : {1, 5, 64}) {
        for (const bool transpose : {false, true}) {
          const std::vector<double> a = RandomValues<T>(m * k, 1);
          const std::vector<double> b = RandomValues<T>(k * n, 2);
          const std::vector<double> c = RandomValues<T>(m * n, 3);
          const std::vector<double> scale = RandomValues<T>(m, 4);
          const std::vector<T> a_tile = transpose ? this->Of(k, m, a) : this->Of(m, k, a);
          const std::vector<T> b_tile = this->Of(k, n, b);
          const std::vector<T> scale_t = Converted<T>(scale);
          std::vector<T> c_tile = this->Of(m, n, c);
          TileGemm<T>({.m = m,
                       .n = n,
                       .k = k,
                       .a = a_tile.data(),
                       .a_stride = TileStride<T>(transpose ? m : k),
                       .transpose_a = transpose,
                       .b = b_tile.data(),
                       .b_stride = TileStride<T>(n),
                       .c = c_tile.data(),
                       .c_stride = TileStride<T>(n),
                       .row_scale = scale_t.data(),
                       .accumulate = true});
          std::vector<double> expected = reference::Gemm(transpose, false, m, n, k, a, b);
          for (int64_t i = 0; i < m * n; ++i) {
            const auto at = static_cast<size_t>(i);
            expected[at] = scale[static_cast<size_t>(i / n)] * expected[at] + c[at];
          }
          EXPECT_LE(RelativeRms(this->ValuesOf(m, n, c_tile), expected), this->kTolerance)
              << m << " " << n << " " << k << " " << transpose;
        }
      }
    }
  }
}

TYPED_TEST(Tile, TriangularProducts) {
  using T = TypeParam;
  for (const int64_t size : {1, 7, 8, 63, 64}) {
    const int64_t n = 20;
    std::vector<double> a = RandomValues<T>(size * size, 1);
    const std::vector<double> b = RandomValues<T>(size * n, 2);
    for (int64_t i = 0; i < size; ++i) {
      std::fill_n(a.begin() + i * size + i + 1, size - i - 1, 0.0);
    }
    const std::vector<T> a_tile = this->Of(size, size, a);
    const std::vector<T> b_tile = this->Of(size, n, b);
    for (const bool transpose : {false, true}) {
      std::vector<T> c_tile(static_cast<size_t>(TileElements<T>(size, n)));
      TileGemm<T>({.m = size,
                   .n = n,
                   .k = size,
                   .a = a_tile.data(),
                   .a_stride = TileStride<T>(size),
                   .transpose_a = transpose,
                   .b = b_tile.data(),
                   .b_stride = TileStride<T>(n),
                   .c = c_tile.data(),
                   .c_stride = TileStride<T>(n),
                   .part = transpose ? Part::kUpperA : Part::kLowerA});
      EXPECT_LE(RelativeRms(this->ValuesOf(size, n, c_tile),
                            reference::Gemm(transpose, false, size, n, size, a, b)),
                this->kTolerance);
    }
  }
}

TYPED_TEST(Tile, TransposesExactly) {
  using T = TypeParam;
  for (const int64_t rows : {1, 9, 64, 128}) {
    for (const int64_t width : {1, 4, 33, 64}) {
      const std::vector<double> x = RandomValues<T>(rows * width, 1);
      const std::vector<T> tile = this->Of(rows, width, x);
      std::vector<T> transposed(static_cast<size_t>(TileElements<T>(width, rows)));
      TransposeTile(rows, width, tile.data(), transposed.data());
      const std::vector<T> values = this->ValuesOf(width, rows, transposed);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t c = 0; c < width; ++c) {
          ASSERT_EQ(static_cast<double>(values[static_cast<size_t>(c * rows + i)]),
                    x[static_cast<size_t>(i * width + c)]);
        }
      }
    }
  }
}

TYPED_TEST(Tile, MaskDropsWhatLiesAboveTheDiagonal) {
  using T = TypeParam;
  const T powers[] = {T{1}, T{0.5}, T{0.25}};
  const std::vector<T> mask = {powers[2], powers[1], powers[0], T{0}, T{0}};
  const T bad = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> tile(static_cast<size_t>(TileElements<T>(3, 3)), T{1});
  tile[1] = bad;
  tile[2] = bad;
  tile[static_cast<size_t>(TileStride<T>(3) + 2)] = bad;
  MaskDecay<T>(3, mask.data(), tile.data());
  EXPECT_EQ(this->ValuesOf(3, 3, tile),
            (std::vector<T>{T{1}, T{0}, T{0}, T{0.5}, T{1}, T{0}, T{0.25}, T{0.5}, T{1}}));
}

TEST(Exp, IsWithinTwoUnitsOfTheLastPlace) {
  double worst = 0;
  for (int i = -86000; i <= 88000; ++i) {
    const float x = static_cast<float>(i) / 1000.0F;
    const double expected = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(static_cast<double>(Exp(x)) - expected) / expected);
  }
  EXPECT_LE(worst, 2.0 / (1 << 23));
  EXPECT_EQ(Exp(0.0F), 1.0F);
  EXPECT_EQ(Exp(-std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(Exp(-std::numeric_limits<float>::signaling_NaN())));
}

}  // namespace
}  // namespace lasp::kernels::cpu
