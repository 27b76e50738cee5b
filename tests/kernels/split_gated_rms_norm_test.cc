// The gated norm of rows in two parts of unequal widths against the fp64 oracle of whole rows.
#include "kernels/split_gated_rms_norm.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/reference/operations.h"
#include "tests/kernels/operation_test.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

template <typename T>
using SplitGatedRmsNorm = OperationTest<T>;
TYPED_TEST_SUITE(SplitGatedRmsNorm, OperationTypes);

constexpr int64_t kRows = 5;
// Gates and their gradients lie in rows as much wider.
constexpr int64_t kGateMargin = 3;

// One rank's columns of a row.
template <typename T>
struct Part {
  int64_t begin = 0;
  int64_t width = 0;
  std::vector<T> input;
  std::vector<T> gate;
  std::vector<T> output_gradient;
  std::vector<T> sums;
  std::vector<T> inverse_rms;
  std::vector<T> output;
  std::vector<T> gate_gradient;

  int64_t gate_stride() const { return width + kGateMargin; }
};

template <typename T>
std::vector<T> Cut(const std::vector<double>& whole, int64_t whole_width, const Part<T>& part,
                   int64_t stride) {
  std::vector<T> values(static_cast<size_t>(kRows * stride));
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t c = 0; c < part.width; ++c) {
      values[static_cast<size_t>(row * stride + c)] =
          static_cast<T>(whole[static_cast<size_t>(row * whole_width + part.begin + c)]);
    }
  }
  return values;
}

// Whole rows of what the parts have.
template <typename T>
std::vector<T> Join(const std::array<Part<T>, 2>& parts, std::vector<T> Part<T>::* member,
                    bool is_gate) {
  std::vector<T> whole;
  for (int64_t row = 0; row < kRows; ++row) {
    for (const Part<T>& part : parts) {
      const int64_t stride = is_gate ? part.gate_stride() : part.width;
      const auto begin = (part.*member).begin() + row * stride;
      whole.insert(whole.end(), begin, begin + part.width);
    }
  }
  return whole;
}

// What the ranks do between two operations.
template <typename T>
void AddUp(std::vector<T>& a, std::vector<T>& b) {
  for (size_t row = 0; row < a.size(); ++row) {
    a[row] += b[row];
    b[row] = a[row];
  }
}

std::vector<double> Times(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> product(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    product[i] = a[i] * b[i];
  }
  return product;
}

TYPED_TEST(SplitGatedRmsNorm, PartsMakeTheNormOfTheWhole) {
  using T = TypeParam;
  for (const int64_t first : kSizes) {
    const int64_t whole_width = first + 7;
    const std::vector<double> o = RandomValues<T>(kRows * whole_width, 1);
    const std::vector<double> gate = RandomValues<T>(kRows * whole_width, 2);
    const std::vector<double> d_y = RandomValues<T>(kRows * whole_width, 3);
    std::array<Part<T>, 2> parts;
    parts[0].width = first;
    parts[1].begin = first;
    parts[1].width = whole_width - first;
    for (Part<T>& part : parts) {
      part.input = Cut(o, whole_width, part, part.width);
      part.gate = Cut(gate, whole_width, part, part.gate_stride());
      part.output_gradient = Cut(d_y, whole_width, part, part.width);
      part.output = part.input;
      part.gate_gradient = part.gate;
      part.inverse_rms.resize(kRows);
      part.sums.resize(kRows);
      cpu::SplitNormSums<T>({.rows = kRows,
                             .width = part.width,
                             .input = part.input.data(),
                             .sums = part.inverse_rms.data()});
      cpu::SplitNormSums<T>({.rows = kRows,
                             .width = part.width,
                             .input = part.input.data(),
                             .output_gradient = part.output_gradient.data(),
                             .gate = part.gate.data(),
                             .gate_stride = part.gate_stride(),
                             .sums = part.sums.data()});
    }
    AddUp(parts[0].inverse_rms, parts[1].inverse_rms);
    AddUp(parts[0].sums, parts[1].sums);
    for (Part<T>& part : parts) {
      cpu::SplitGatedRmsNormForward<T>({.rows = kRows,
                                        .width = part.width,
                                        .whole_width = whole_width,
                                        .input = part.input.data(),
                                        .gate = part.gate.data(),
                                        .gate_stride = part.gate_stride(),
                                        .output = part.output.data(),
                                        .inverse_rms = part.inverse_rms.data()});
      cpu::SplitGatedRmsNormBackward<T>({.rows = kRows,
                                         .width = part.width,
                                         .whole_width = whole_width,
                                         .input = part.input.data(),
                                         .gate = part.gate.data(),
                                         .gate_stride = part.gate_stride(),
                                         .inverse_rms = part.inverse_rms.data(),
                                         .sums = part.sums.data(),
                                         .output_gradient = part.output_gradient.data(),
                                         .input_gradient = part.output_gradient.data(),  // in place
                                         .gate_gradient = part.gate_gradient.data(),
                                         .gate_gradient_stride = part.gate_stride()});
    }
    const std::vector<double> normed = reference::RmsNormForward(whole_width, o);
    EXPECT_LE(RelativeRms(Join(parts, &Part<T>::output, false), Times(gate, normed)),
              this->kTolerance)
        << first;
    EXPECT_LE(RelativeRms(Join(parts, &Part<T>::gate_gradient, true), Times(d_y, normed)),
              this->kTolerance)
        << first;
    EXPECT_LE(RelativeRms(Join(parts, &Part<T>::output_gradient, false),
                          reference::RmsNormBackward(whole_width, o, Times(d_y, gate))),
              this->kTolerance)
        << first;
  }
}

}  // namespace
}  // namespace lasp::kernels
