// That cuDNN has an engine for what layers of softmax attention compute, and compiles it, where
// there is no GPU: for the description of an H100, with a driver that runs nothing.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "kernels/cuda/softmax_attention.h"

namespace lasp::kernels::cuda {
namespace {

constexpr char kH100[] = R"({
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
  "regsPerBlock": 65536, "multiProcessorCount": 132, "warpSize": 32,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
  "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32,
  "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 9008, "isTccDriver": 0,
  "supportCoopLaunch": 1, "smClockRateKHz": 1980000, "memClockRateKHz": 2619000,
  "l2CacheSize": 52428800, "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0,
  "totalGlobalMem": 85017755648, "deviceName": "NVIDIA H100 80GB HBM3"})";

class SoftmaxPlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudnnLoading& loading = LoadCudnn();
    if (loading.library == nullptr) {
      GTEST_SKIP() << loading.failure;
    }
    ASSERT_EQ(SoftmaxAttention::Create(loading.library, 0, kH100, &attention_),
              CUDNN_STATUS_SUCCESS);
  }

  // Of a packed projection: queries, keys and values side by side.
  static HeadsView<Bf16> Rows(const SoftmaxAttentionShape& shape, int64_t tokens) {
    const int64_t row = (shape.heads + 2 * shape.kv_heads) * shape.head_size;
    return {nullptr, tokens * row, row, shape.head_size};
  }

  void ExpectPlans(const SoftmaxAttentionShape& shape) {
    SCOPED_TRACE(::testing::Message()
                 << shape.queries << " queries, " << shape.keys << " keys from " << shape.offset
                 << ", " << shape.heads << "/" << shape.kv_heads << " of " << shape.head_size);
    SoftmaxWorkspace workspace;
    ASSERT_EQ(attention_->WorkspaceBytes(shape, &workspace.bytes), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(workspace.bytes % 256, 0);
    const HeadsView<Bf16> q = Rows(shape, shape.queries);
    const HeadsView<Bf16> k = Rows(shape, shape.keys);
    EXPECT_EQ(attention_->PlanOutput({shape, q, k, k, q, nullptr}, workspace),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(attention_->PlanGradients({shape, q, k, k, q, nullptr, q, q, k, k}, workspace),
              CUDNN_STATUS_SUCCESS);
    int32_t starts = 0;  // only its being there counts
    EXPECT_EQ(attention_->PlanOutput({shape, q, k, k, q, nullptr, &starts}, workspace),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(
        attention_->PlanGradients({shape, q, k, k, q, nullptr, q, q, k, k, &starts}, workspace),
        CUDNN_STATUS_SUCCESS);
  }

  std::unique_ptr<SoftmaxAttention> attention_;
};

// One rank's; LASP-2H's and a ring's second rank's; sizes of heads that are no power of two.
TEST_F(SoftmaxPlanTest, CoversWhatLayersCompute) {
  ExpectPlans({.batch = 1,
               .queries = 32768,
               .keys = 32768,
               .heads = 16,
               .kv_heads = 4,
               .head_size = 128,
               .offset = 0});
  ExpectPlans({.batch = 1,
               .queries = 8192,
               .keys = 16384,
               .heads = 16,
               .kv_heads = 16,
               .head_size = 64,
               .offset = 8192});
  ExpectPlans({.batch = 2,
               .queries = 1000,
               .keys = 1000,
               .heads = 4,
               .kv_heads = 2,
               .head_size = 72,
               .offset = 1000});
  ExpectPlans({.batch = 1,
               .queries = 1,
               .keys = 1,
               .heads = 3,
               .kv_heads = 1,
               .head_size = 8,
               .offset = 0});
}

// Beside the rows' sums and the gradient of q in fp32 the scratch is that of shared heads; where
// all scores' gradients fit it is theirs.
TEST_F(SoftmaxPlanTest, NeedsMemoryForQueriesOnlyWhereSequencesAreLong) {
  const auto bytes = [&](int64_t tokens, int64_t kv_heads) {
    int64_t needed = 0;
    EXPECT_EQ(attention_->WorkspaceBytes({.batch = 1,
                                          .queries = tokens,
                                          .keys = tokens,
                                          .heads = 16,
                                          .kv_heads = kv_heads,
                                          .head_size = 128,
                                          .offset = 0},
                                         &needed),
              CUDNN_STATUS_SUCCESS);
    return needed;
  };
  constexpr int64_t kQueries = int64_t{16} * 32768 * 4;  // bytes of one fp32 for each
  EXPECT_NEAR(static_cast<double>(bytes(32768, 16)), 129.0 * kQueries, 1 << 20);
  EXPECT_NEAR(static_cast<double>(bytes(32768, 4)), 257.0 * kQueries, 1 << 20);
  EXPECT_GE(bytes(2048, 16), int64_t{16} * 2048 * 2048 * 2);
}

TEST_F(SoftmaxPlanTest, RefusesOtherOffsetsAndTooLittleMemory) {
  SoftmaxAttentionShape shape{.batch = 1,
                              .queries = 128,
                              .keys = 256,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_size = 64,
                              .offset = 64};
  const HeadsView<Bf16> rows = Rows(shape, 256);
  EXPECT_EQ(attention_->PlanOutput({shape, rows, rows, rows, rows, nullptr}, {nullptr, 1 << 20}),
            CUDNN_STATUS_NOT_SUPPORTED);
  shape.offset = 128;
  EXPECT_EQ(attention_->PlanGradients(
                {shape, rows, rows, rows, rows, nullptr, rows, rows, rows, rows}, {nullptr, 4096}),
            CUDNN_STATUS_NOT_SUPPORTED);
}

}  // namespace
}  // namespace lasp::kernels::cuda
