// The left product on the GPU against the CPU's in fp64 from the same inputs.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/left_product_attention.h"
#include "kernels/lrpe.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

// Scores are rounded before they meet values, and with LRPE doubled rows and their gradients too.
// Where a row has but one score all of it is off by that rounding.
constexpr double kTolerance = 6e-3;

struct Case {
  int64_t tokens;
  int64_t distance;
  bool rotary = false;
  bool adds = false;
  int64_t size = 128;
};

class LeftProductCuda : public lasp::testing::GpuTest {
 protected:
  static constexpr int64_t kBatch = 2;
  static constexpr int64_t kHeads = 3;

  static void Check(const Case& c) {
    SCOPED_TRACE(::testing::Message()
                 << c.tokens << " tokens of " << c.size << " at distance " << c.distance
                 << (c.rotary ? " with LRPE" : "") << (c.adds ? ", added" : ""));
    const std::vector<double> slopes = {0.7, 0.0039, 0.0};
    std::vector<double> theta(static_cast<size_t>(kHeads * c.size));
    LrpeTheta(kHeads, c.size, theta.data());
    LinearAttentionShape shape{.batch = kBatch,
                               .tokens = c.tokens,
                               .heads = kHeads,
                               .key_size = c.size,
                               .value_size = c.size,
                               .slopes = slopes.data(),
                               .theta = c.rotary ? theta.data() : nullptr};
    const int64_t count = kBatch * c.tokens * kHeads * c.size;
    std::vector<double> q = RandomBf16(count, 1);
    std::vector<double> k = RandomBf16(count, 2);
    std::vector<double> v = RandomBf16(count, 3);
    std::vector<double> d_o = RandomBf16(count, 4);
    std::vector<double> o = RandomBf16(count, 5, 10.0);
    std::vector<double> d_q = RandomBf16(count, 6, 10.0);
    std::vector<double> d_k(o.size());
    std::vector<double> d_v(o.size());
    const DeviceArray<Bf16> q_d(q);
    const DeviceArray<Bf16> k_d(k);
    const DeviceArray<Bf16> v_d(v);
    const DeviceArray<Bf16> d_o_d(d_o);
    const DeviceArray<Bf16> o_d(o);
    const DeviceArray<Bf16> d_q_d(d_q);
    const DeviceArray<Bf16> d_k_d(count);
    const DeviceArray<Bf16> d_v_d(count);
    const auto view = [&](auto* data) {
      return HeadsView<std::remove_pointer_t<decltype(data)>>{data, c.tokens * kHeads * c.size,
                                                              kHeads * c.size, c.size};
    };

    cpu::LeftProductOutput<double>({shape, c.distance, view(q.data()), view(k.data()),
                                    view(v.data()), c.adds, view(o.data())});
    cpu::LeftProductGradients<double>({shape, c.distance, view(q.data()), view(k.data()),
                                       view(v.data()), view(d_o.data()), c.adds, view(d_q.data()),
                                       view(d_k.data()), view(d_v.data()), nullptr});

    const DeviceArray<double> slopes_d(slopes);
    const DeviceArray<double> theta_d(theta);
    shape.slopes = slopes_d.data();
    shape.theta = c.rotary ? theta_d.data() : nullptr;
    const DeviceArray<Bf16> workspace(LeftProductWorkspaceElements(shape));
    ASSERT_EQ(LeftProductOutput({shape, c.distance, view(q_d.data()), view(k_d.data()),
                                 view(v_d.data()), c.adds, view(o_d.data()), workspace.data()},
                                nullptr),
              cudaSuccess);
    ASSERT_EQ(
        LeftProductGradients({shape, c.distance, view(q_d.data()), view(k_d.data()),
                              view(v_d.data()), view(d_o_d.data()), c.adds, view(d_q_d.data()),
                              view(d_k_d.data()), view(d_v_d.data()), workspace.data()},
                             nullptr),
        cudaSuccess);
    EXPECT_LE(RelativeRms(o_d.Values(), o), kTolerance);
    EXPECT_LE(RelativeRms(d_q_d.Values(), d_q), kTolerance);
    EXPECT_LE(RelativeRms(d_k_d.Values(), d_k), kTolerance);
    EXPECT_LE(RelativeRms(d_v_d.Values(), d_v), kTolerance);
  }
};

// One chunk, a warpgroup without rows, rests, more tiles than stages.
TEST_F(LeftProductCuda, IsTheCpusOfTheQueriesOwnSlice) {
  for (const int64_t tokens : {1, 63, 64, 65, 128, 200, 700, 1000}) {
    for (const bool rotary : {false, true}) {
      Check({.tokens = tokens, .distance = 0, .rotary = rotary});
    }
  }
}

TEST_F(LeftProductCuda, IsTheCpusOfSlicesBeforeIt) {
  for (const int64_t tokens : {1, 64, 65, 700}) {
    for (const int64_t apart : {1, 3}) {
      for (const bool rotary : {false, true}) {
        Check({.tokens = tokens, .distance = apart * tokens, .rotary = rotary, .adds = true});
      }
    }
  }
}

TEST_F(LeftProductCuda, TakesNarrowHeads) {
  for (const int64_t size : {8, 64, 72}) {
    for (const bool rotary : {false, true}) {
      Check({.tokens = 300, .distance = 0, .rotary = rotary, .size = size});
      Check({.tokens = 300, .distance = 300, .rotary = rotary, .adds = true, .size = size});
    }
  }
}

// Decays that are gone at the first tile, and positions far out.
TEST_F(LeftProductCuda, IsRightFarOut) {
  Check({.tokens = 130, .distance = int64_t{1} << 26, .rotary = true, .adds = true});
  Check({.tokens = 130, .distance = int64_t{1} << 26, .rotary = false, .adds = false});
}

TEST_F(LeftProductCuda, RefusesWhatOverlaps) {
  const DeviceArray<Bf16> x(1024);
  const DeviceArray<double> slopes(std::vector<double>{0.5});
  const HeadsView<Bf16> view{x.data(), 1024, 8, 8};
  const LinearAttentionShape shape{.batch = 1,
                                   .tokens = 128,
                                   .heads = 1,
                                   .key_size = 8,
                                   .value_size = 8,
                                   .slopes = slopes.data(),
                                   .theta = nullptr};
  EXPECT_EQ(LeftProductOutput({shape, 127, view, view, view, false, view, nullptr}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace lasp::kernels::cuda
