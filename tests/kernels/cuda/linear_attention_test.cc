// Linear attention on the GPU against the fp64 recurrence, which itself is held to
// kernels/reference. The bounds are relative RMS errors of the worst head.
#include "kernels/cuda/linear_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"
#include "kernels/reference/linear_attention.h"
#include "tests/kernels/cuda/linear_attention_layer.h"
#include "tests/support/gpu.h"

namespace lasp::kernels {
namespace {

using testing::DeviceArray;
using testing::GpuIsFine;

constexpr double kBound = 5e-3;
constexpr double kStateBound = 3e-3;

// TransNormer's slopes of a layer of 16.
std::vector<double> LayerSlopes(int64_t layer, int64_t heads) {
  std::vector<double> slopes(static_cast<size_t>(heads));
  DecaySlopes(layer, 16, heads, slopes.data());
  return slopes;
}

class CudaLinearAttention : public testing::GpuTest {
 protected:
  static void Check(const char* name, const LayerCase& c) {
    Layer layer(c);
    const cudaError_t error = layer.Run();
    ASSERT_EQ(error, cudaSuccess) << name << ": " << cudaGetErrorName(error);
    const LayerErrors errors = layer.Errors();
    std::printf("%-28s B%lld T%-6lld H%-2lld d%-3lld segments %-3d ranks %d: %s\n", name,
                static_cast<long long>(c.batch), static_cast<long long>(c.tokens),
                static_cast<long long>(c.heads), static_cast<long long>(c.size), c.segments,
                c.ranks, errors.Text().c_str());
    EXPECT_TRUE(errors.Within(kBound, kStateBound)) << name << ": " << errors.Text();
    EXPECT_TRUE(GpuIsFine());
  }

  // Small enough for sanitizers.
  static void CheckSmall(bool lrpe) {
    Check("small", {.tokens = 150,
                    .heads = 2,
                    .slopes = {0.01, 0.99},
                    .lrpe = lrpe,
                    .segments = 2,
                    .states_in = false,
                    .document_starts = {70},
                    .seed = 180});
    Check("small ranks", {.tokens = 200,
                          .heads = 2,
                          .size = 64,
                          .slopes = {0, 0.1},
                          .lrpe = lrpe,
                          .ranks = 2,
                          .seed = 181});
  }
};

// With LRPE or without.
void CheckRecurrence(bool lrpe) {
  const int64_t batch = 2;
  const int64_t tokens = 37;
  const int64_t heads = 3;
  const int64_t size = 16;
  const int64_t count = batch * tokens * heads * size;
  const auto random = [&](uint64_t seed) {
    DeviceArray<cuda::Bf16> values(count);
    EXPECT_EQ(FillNormal(count, seed, 1, values.data()), cudaSuccess);
    return values;
  };
  const DeviceArray<cuda::Bf16> q = random(1);
  const DeviceArray<cuda::Bf16> k = random(2);
  const DeviceArray<cuda::Bf16> v = random(3);
  const DeviceArray<cuda::Bf16> output_gradient = random(4);
  const std::vector<double> slopes = LayerSlopes(1, heads);
  std::vector<double> theta(lrpe ? heads * size : 0);
  if (lrpe) {
    LrpeTheta(heads, size, theta.data());
  }
  const reference::LinearAttention x = {.batch = batch,
                                        .tokens = tokens,
                                        .heads = heads,
                                        .key_size = size,
                                        .value_size = size,
                                        .slopes = slopes,
                                        .theta = theta,
                                        .q = q.Values(),
                                        .k = k.Values(),
                                        .v = v.Values()};
  const reference::LinearAttentionGradients gradients =
      reference::LinearAttentionBackward(x, output_gradient.Values());
  const DeviceArray<double> device_slopes(slopes);
  const DeviceArray<double> device_theta(theta);
  const DeviceArray<double> output(count);
  const DeviceArray<double> q_gradient(count);
  const DeviceArray<double> k_gradient(count);
  const DeviceArray<double> v_gradient(count);
  Recurrence recurrence;
  recurrence.shape = {.batch = batch,
                      .tokens = tokens,
                      .heads = heads,
                      .key_size = size,
                      .value_size = size,
                      .slopes = device_slopes.data(),
                      .theta = lrpe ? device_theta.data() : nullptr};
  const auto view = [&](const DeviceArray<cuda::Bf16>& array) -> HeadsView<const cuda::Bf16> {
    return {array.data(), tokens * heads * size, heads * size, size};
  };
  recurrence.q = view(q);
  recurrence.k = view(k);
  recurrence.v = view(v);
  recurrence.output_gradient = view(output_gradient);
  recurrence.output = output.data();
  recurrence.q_gradient = q_gradient.data();
  recurrence.k_gradient = k_gradient.data();
  recurrence.v_gradient = v_gradient.data();
  const DeviceArray<double> theta_gradient(std::vector<double>(theta.size(), 0));
  recurrence.theta_gradient = lrpe ? theta_gradient.data() : nullptr;
  ASSERT_EQ(RunRecurrence(recurrence), cudaSuccess);
  const auto expect_near = [](const std::vector<double>& actual,
                              const std::vector<double>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], 1e-9 * (1 + std::abs(expected[i]))) << i;
    }
  };
  expect_near(output.Values(), reference::LinearAttentionForward(x));
  expect_near(q_gradient.Values(), gradients.q);
  expect_near(k_gradient.Values(), gradients.k);
  expect_near(v_gradient.Values(), gradients.v);
  if (lrpe) {
    const std::vector<double> actual = theta_gradient.Values();
    ASSERT_EQ(actual.size(), gradients.theta.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], gradients.theta[i], 1e-7 * (1 + std::abs(gradients.theta[i]))) << i;
    }
  }
}

TEST_F(CudaLinearAttention, RecurrenceIsTheReference) {
  CheckRecurrence(false);
  CheckRecurrence(true);
}

TEST_F(CudaLinearAttention, Lrpe) {
  uint64_t seed = 200;
  for (const int64_t tokens : {1, 63, 64, 65, 129, 1000, 8192}) {
    Check("lrpe length", {.batch = 2,
                          .tokens = tokens,
                          .heads = 3,
                          .slopes = {0, 0.03, 0.99},
                          .lrpe = true,
                          .seed = ++seed});
  }
  for (int segments = 1; segments <= 31; ++segments) {
    Check("lrpe segments", {.batch = 2,
                            .tokens = 1950,
                            .heads = 4,
                            .slopes = {0, 0.004, 0.3, 0.99},
                            .lrpe = true,
                            .segments = segments,
                            .seed = ++seed});
  }
  for (const int ranks : {2, 3, 4}) {
    Check("lrpe ranks", {.batch = 2,
                         .tokens = 3001,
                         .heads = 4,
                         .slopes = {0, 0.002, 0.1, 0.99},
                         .lrpe = true,
                         .ranks = ranks,
                         .states_in = ranks == 3,
                         .seed = ++seed});
  }
  for (const int64_t size : {8, 64, 96}) {
    Check("lrpe size", {.batch = 2,
                        .tokens = 777,
                        .heads = 3,
                        .size = size,
                        .slopes = {0.004, 0.3, 0.99},
                        .lrpe = true,
                        .segments = 3,
                        .seed = ++seed});
  }
  Check("lrpe layer 0",
        {.tokens = 2500, .heads = 16, .slopes = LayerSlopes(0, 16), .lrpe = true, .seed = ++seed});
  // Without states coming in theta's gradient is compared too.
  for (const int segments : {0, 1, 3}) {
    Check("lrpe theta", {.batch = 2,
                         .tokens = 1001,
                         .heads = 3,
                         .slopes = {0.004, 0.1, 0.99},
                         .lrpe = true,
                         .segments = segments,
                         .states_in = false,
                         .seed = ++seed});
  }
  Check("lrpe theta ranks", {.tokens = 5003,
                             .heads = 16,
                             .slopes = LayerSlopes(0, 16),
                             .lrpe = true,
                             .ranks = 3,
                             .states_in = false,
                             .seed = ++seed});
  // Its error does not grow with a segment.
  Check("lrpe theta long", {.tokens = 100003,
                            .heads = 16,
                            .slopes = LayerSlopes(0, 16),
                            .lrpe = true,
                            .segments = 1,
                            .states_in = false,
                            .seed = ++seed});
  Check("lrpe theta size", {.tokens = 1000,
                            .heads = 2,
                            .size = 96,
                            .slopes = {0.01, 0.99},
                            .lrpe = true,
                            .segments = 2,
                            .states_in = false,
                            .document_starts = {100, 640},
                            .seed = ++seed});
  Check("lrpe documents", {.batch = 2,
                           .tokens = 1000,
                           .heads = 3,
                           .slopes = {0, 0.01, 0.3},
                           .lrpe = true,
                           .segments = 4,
                           .document_starts = {5, 64, 100, 101, 127, 600, 1000, 1063, 1999},
                           .seed = ++seed});
  Check(
      "lrpe long",
      {.tokens = 100003, .heads = 4, .slopes = {0, 1e-5, 0.1, 0.99}, .lrpe = true, .seed = ++seed});
}

TEST_F(CudaLinearAttention, AnyLength) {
  uint64_t seed = 10;
  for (const int64_t tokens : {1, 2, 63, 64, 65, 127, 128, 129, 1000, 8192}) {
    Check("length",
          {.batch = 2, .tokens = tokens, .heads = 3, .slopes = {0, 0.03, 0.99}, .seed = ++seed});
  }
}

TEST_F(CudaLinearAttention, LongSequence) {
  Check("long", {.tokens = 100003, .heads = 4, .slopes = {0, 1e-5, 0.1, 0.99}, .seed = 30});
}

TEST_F(CudaLinearAttention, TransNormerSlopes) {
  for (int64_t layer = 0; layer < 16; ++layer) {
    Check("layer", {.tokens = 2500,
                    .heads = 16,
                    .slopes = LayerSlopes(layer, 16),
                    .states_in = layer % 2 == 0,
                    .seed = 40 + static_cast<uint64_t>(layer)});
  }
}

TEST_F(CudaLinearAttention, AnySegmentCount) {
  for (int segments = 1; segments <= 31; ++segments) {
    Check("segments", {.batch = 2,
                       .tokens = 1950,
                       .heads = 4,
                       .slopes = {0, 0.004, 0.3, 0.99},
                       .segments = segments,
                       .seed = 60 + static_cast<uint64_t>(segments)});
  }
}

TEST_F(CudaLinearAttention, AnyNumberOfRanks) {
  for (const int ranks : {1, 2, 3, 4}) {
    Check("ranks", {.batch = 2,
                    .tokens = 3001,
                    .heads = 4,
                    .slopes = {0, 0.002, 0.1, 0.99},
                    .ranks = ranks,
                    .states_in = ranks == 3,
                    .seed = 100 + static_cast<uint64_t>(ranks)});
  }
}

TEST_F(CudaLinearAttention, OutliersAtSegmentStarts) {
  for (const bool lrpe : {false, true}) {
    Check("outliers", {.tokens = 4096,
                       .heads = 4,
                       .slopes = {0, 0.01, 0.05, 0.7},
                       .lrpe = lrpe,
                       .segments = 4,
                       .outliers = {0, 1024, 2048, 3072, 4095},
                       .seed = 120});
  }
}

TEST_F(CudaLinearAttention, HeadSizes) {
  for (const int64_t size : {8, 64, 96, 128}) {
    Check("size", {.batch = 2,
                   .tokens = 777,
                   .heads = 3,
                   .size = size,
                   .slopes = {0.004, 0.3, 0.99},
                   .segments = 3,
                   .seed = 130 + static_cast<uint64_t>(size)});
  }
}

TEST_F(CudaLinearAttention, DocumentStarts) {
  for (const int segments : {1, 4}) {
    Check("documents", {.batch = 2,
                        .tokens = 1000,
                        .heads = 3,
                        .slopes = {0, 0.01, 0.3},
                        .segments = segments,
                        .document_starts = {5, 64, 100, 101, 127, 128, 600, 1000, 1063, 1800, 1999},
                        .seed = 150 + static_cast<uint64_t>(segments)});
  }
  Check("documents", {.batch = 1,
                      .tokens = 1000,
                      .heads = 3,
                      .slopes = {0, 0.01, 0.3},
                      .segments = 2,
                      .ranks = 3,
                      .document_starts = {400, 700},
                      .seed = 160});
}

// What compute-sanitizer is run on: every kernel, a few chunks.
TEST_F(CudaLinearAttention, SmallShapes) { CheckSmall(/*lrpe=*/false); }

TEST_F(CudaLinearAttention, LrpeOfSmallShapes) { CheckSmall(/*lrpe=*/true); }

// Keys and queries have more than 2^32 elements, and so have the segments' states; the last rows
// are checked, which do not see the first.
void CheckLarge(bool lrpe) {
  size_t free = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  if (free < size_t{95'000'000'000}) {
    GTEST_SKIP() << "needs 95 GB of memory";
  }
  const int64_t tokens = (int64_t{1} << 20) + 77;
  const int64_t checked = 1000;
  std::vector<double> slopes(16, 0.05);
  slopes[15] = 0.9;
  Layer layer({.tokens = tokens,
               .heads = 16,
               .slopes = slopes,
               .lrpe = lrpe,
               .segments = lrpe ? 8193 : 16386,
               .states_in = !lrpe,
               .first_query = lrpe ? tokens - checked : 0,
               .seed = 190});
  ASSERT_EQ(layer.Run(), cudaSuccess);
  const LayerErrors errors = layer.ErrorsFrom(tokens - 2 * checked, checked);
  std::printf("%-28s T%lld: %s\n", lrpe ? "lrpe large" : "large", static_cast<long long>(tokens),
              errors.Text().c_str());
  EXPECT_TRUE(errors.Within(kBound, kStateBound)) << errors.Text();
}

TEST_F(CudaLinearAttention, MoreElementsThan32BitsCount) { CheckLarge(false); }

TEST_F(CudaLinearAttention, LrpeOfMoreElementsThan32BitsCount) { CheckLarge(true); }

TEST_F(CudaLinearAttention, EqualRunsGiveEqualBits) {
  for (const bool lrpe : {false, true}) {
    Layer layer({.tokens = 5000,
                 .heads = 16,
                 .slopes = LayerSlopes(8, 16),
                 .lrpe = lrpe,
                 .states_in = false,
                 .seed = 170});
    ASSERT_EQ(layer.Run(), cudaSuccess);
    const std::vector<unsigned char> first = layer.Results();
    for (int run = 0; run < 3; ++run) {
      layer.Poison();
      ASSERT_EQ(layer.Run(), cudaSuccess);
      EXPECT_TRUE(layer.Results() == first) << "lrpe " << lrpe;
    }
  }
}

TEST_F(CudaLinearAttention, RefusesWhatItDoesNotTake) {
  const DeviceArray<cuda::Bf16> values(int64_t{64} * 256);
  const DeviceArray<double> slopes(std::vector<double>{0.1});
  const DeviceArray<float> state(int64_t{256} * 256);
  const auto local_state = [&](int64_t size, int64_t stride) {
    cuda::LinearAttentionProblem problem;
    problem.shape = {.batch = 1,
                     .tokens = 64,
                     .heads = 1,
                     .key_size = size,
                     .value_size = size,
                     .slopes = slopes.data()};
    const HeadsView<const cuda::Bf16> view = {values.data(), 64 * stride, stride, size};
    return cuda::LocalState({.problem = problem,
                             .k = view,
                             .v = view,
                             .segment_states = nullptr,
                             .state = state.data()},
                            nullptr);
  };
  EXPECT_EQ(local_state(128, 128), cudaSuccess);
  EXPECT_EQ(local_state(136, 136), cudaErrorInvalidValue);  // too wide
  EXPECT_EQ(local_state(100, 104), cudaErrorInvalidValue);  // no multiple of 8
  EXPECT_EQ(local_state(64, 100), cudaErrorInvalidValue);   // rows not at multiples of 16 bytes
  EXPECT_TRUE(GpuIsFine());
}

}  // namespace
}  // namespace lasp::kernels
