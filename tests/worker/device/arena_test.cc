#include "worker/device/arena.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ArenaTest, MeasuresFirstAndThenHandsOutAlignedZeroedPieces) {
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  const auto take = [](Arena& arena) {
    return std::vector<Tensor>{arena.Take(MemoryUse::kWeights, DType::kFloat32, 3, 5),
                               arena.Take(MemoryUse::kStates, DType::kInt32, 1, 1),
                               arena.Take(MemoryUse::kWeights, DType::kFloat64, 2, 9)};
  };
  Arena plan;
  for (const Tensor& tensor : take(plan)) {
    EXPECT_TRUE(tensor.empty());
  }
  Arena arena = Arena::Create(*backend, plan.used_bytes()).value();
  const std::vector<Tensor> tensors = take(arena);
  EXPECT_EQ(arena.used_bytes(), plan.used_bytes());
  const char* end = nullptr;
  for (const Tensor& tensor : tensors) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 64, 0u);
    EXPECT_GE(static_cast<const char*>(tensor.data), end);
    end = static_cast<const char*>(tensor.data) + tensor.bytes();
    for (int64_t i = 0; i < tensor.bytes(); ++i) {
      ASSERT_EQ(static_cast<const char*>(tensor.data)[i], 0);
    }
  }
}

TEST(ArenaTest, BillsWhatIsTakenByUse) {
  Arena plan;
  plan.Take(MemoryUse::kGradients, DType::kFloat32, 1024, 1024);
  plan.Take(MemoryUse::kWeights, DType::kBFloat16, 1, 1);
  plan.Take(MemoryUse::kGradients, DType::kFloat32, 1024, 512);
  EXPECT_EQ(plan.bill()[MemoryUse::kGradients], 6 << 20);
  EXPECT_EQ(plan.bill()[MemoryUse::kWeights], 256);
  EXPECT_EQ(plan.used_bytes(), (6 << 20) + 256);
  EXPECT_EQ(plan.bill().ToString(), "weights 256 bytes, gradients 6.0 MiB: 6.0 MiB");
}

TEST(ArenaTest, MoreThanThereIsIsAnErrorThatNamesTheSize) {
  const auto backend = CreateCpuBackend(DType::kFloat32, 1).value();
  EXPECT_THAT(Arena::Create(*backend, int64_t{1} << 55).status(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("36028797018963968 bytes")));
}

TEST(TensorTest, ViewsSelectRowsAndColumns) {
  float values[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const Tensor whole{values, DType::kFloat32, 3, 4, 4};
  const Tensor part = whole.Rows(1, 2).Columns(2, 2);
  EXPECT_EQ(*static_cast<float*>(part.data), 6);
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part.columns, 2);
  EXPECT_EQ(part.row_stride, 4);
  EXPECT_FALSE(part.contiguous());
  EXPECT_TRUE(whole.Rows(1, 2).contiguous());
  EXPECT_EQ(whole.Reshape(2, 6).Rows(1, 1).data, values + 6);
}

TEST(CpuBackendTest, RefusesTypesItCannotComputeIn) {
  EXPECT_THAT(CreateCpuBackend(DType::kInt32, 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fp32")));
  EXPECT_THAT(CreateCpuBackend(DType::kFloat32, 0).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("thread")));
}

}  // namespace
}  // namespace lasp::worker
