// The device seam on a GPU: memory, copies, phases, errors, and the record of matrix products.
#include "worker/device/cuda_backend.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "worker/device/arena.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

class CudaBackendTest : public lasp::testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      auto backend = CreateCudaBackend({});
      LASP_ASSERT_OK(backend);
      backend_ = *std::move(backend);
      auto arena = Arena::Create(*backend_, int64_t{256} << 20);
      LASP_ASSERT_OK(arena);
      arena_ = *std::move(arena);
      backend_->UseWorkspace(Take(
          DType::kInt32, backend_->WorkspaceBytes({.rows = kRows, .hidden_size = kWidth}) / 4));
    }
  }

  Tensor Take(DType type, int64_t rows, int64_t columns = 1) {
    return arena_.Take(MemoryUse::kWorkspace, type, rows, columns);
  }

  // c = a b^T of random-looking values, by `backend`.
  std::vector<float> Product(CudaBackend& backend) {
    std::vector<float> values(static_cast<size_t>(kRows * kWidth));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i * 7919 % 2001) / 1000.0F - 1.0F;
    }
    const Tensor source = Take(DType::kFloat32, kRows, kWidth);
    const Tensor a = Take(DType::kBFloat16, kRows, kWidth);
    const Tensor c = Take(DType::kFloat32, kRows, kRows);
    backend.CopyFromHost(values.data(), source);
    backend.Convert(source, a);
    backend.Gemm(false, a, true, a, 0, c);
    std::vector<float> product(static_cast<size_t>(kRows * kRows));
    backend.CopyToHost(c, product.data());
    return product;
  }

  static constexpr int64_t kRows = 256;
  static constexpr int64_t kWidth = 1024;
  std::unique_ptr<CudaBackend> backend_;
  Arena arena_;
};

TEST_F(CudaBackendTest, MemoryIsZeroedAndCopied) {
  const Tensor x = Take(DType::kFloat64, 3, 5);
  std::vector<double> values(15, 7);
  backend_->CopyToHost(x, values.data());
  EXPECT_EQ(values, std::vector<double>(15));
  values[4] = 2.5;
  backend_->CopyFromHost(values.data(), x);
  const Tensor y = Take(DType::kFloat32, 3, 5);
  backend_->Fill(1, y);
  backend_->Convert(x, y);
  std::vector<float> converted(15);
  backend_->CopyToHost(y, converted.data());
  EXPECT_EQ(converted[4], 2.5F);
  LASP_EXPECT_OK(backend_->Synchronize());
}

TEST_F(CudaBackendTest, WhatDoesNotFitIsRefusedWithTheNumbers) {
  EXPECT_THAT(backend_->Allocate(int64_t{1} << 50),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("are free")));
  LASP_EXPECT_OK(backend_->Synchronize());
}

TEST_F(CudaBackendTest, AGpuThatIsNotThereIsNamed) {
  EXPECT_THAT(CreateCudaBackend({.device = 99, .gemm_record = ""}).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no GPU 99")));
}

TEST_F(CudaBackendTest, PhasesAreTimesOfTheDevice) {
  const Tensor x = Take(DType::kFloat32, 32 << 20);
  backend_->EnterPhase(Phase::kForward);
  for (int i = 0; i < 20; ++i) {
    backend_->Fill(1, x);
  }
  EXPECT_EQ(backend_->EnterPhase(Phase::kBackward), Phase::kForward);
  EXPECT_EQ(backend_->EnterPhase(Phase::kOther), Phase::kBackward);
  LASP_ASSERT_OK(backend_->Synchronize());
  const PhaseSeconds seconds = backend_->TakePhaseSeconds();
  EXPECT_GT(seconds[Phase::kForward], 20 * 128e6 / 10e12);  // faster than any memory
  EXPECT_GT(seconds[Phase::kForward], 5 * seconds[Phase::kBackward]);
  EXPECT_EQ(backend_->TakePhaseSeconds()[Phase::kForward], 0);
}

TEST_F(CudaBackendTest, AFailureIsKept) {
  Tensor wrong = Take(DType::kInt32, 1);
  backend_->Fill(1, wrong);  // not a tensor of numbers
  EXPECT_THAT(backend_->Synchronize(), StatusIs(absl::StatusCode::kInternal, HasSubstr("filling")));
  EXPECT_THAT(backend_->Synchronize(), ::testing::Not(lasp::testing::IsOk()));
}

TEST_F(CudaBackendTest, ARecordPinsTheProducts) {
  ASSERT_TRUE(backend_->wants_rehearsal());
  backend_->Rehearse(true);
  Product(*backend_);
  backend_->Rehearse(false);
  const std::vector<float> expected = Product(*backend_);
  const std::string record = backend_->GemmRecord();
  EXPECT_NE(record.find("\"microseconds\""), std::string::npos);
  auto again = CreateCudaBackend({.device = 0, .gemm_record = record});
  LASP_ASSERT_OK(again);
  EXPECT_EQ((*again)->GemmRecord(), record);
  (*again)->UseWorkspace(
      Take(DType::kInt32, (*again)->WorkspaceBytes({.rows = kRows, .hidden_size = kWidth}) / 4));
  EXPECT_EQ(Product(**again), expected);
  LASP_EXPECT_OK((*again)->Synchronize());
  LASP_EXPECT_OK(backend_->Synchronize());
  EXPECT_THAT(CreateCudaBackend({.device = 0, .gemm_record = "{}"}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("record")));
}

}  // namespace
}  // namespace lasp::worker
