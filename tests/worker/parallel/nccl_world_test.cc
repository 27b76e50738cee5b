// Communication over NCCL among two GPUs.
#include "worker/parallel/nccl_world.h"

#include <gtest/gtest.h>

#include <cmath>
#include <latch>
#include <vector>

#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/parallel/gpu_ranks.h"
#include "worker/device/arena.h"
#include "worker/device/cuda_backend.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class NcclWorldTest : public ::lasp::testing::GpuTest {
 protected:
  NcclWorldTest() : GpuTest(2) {}

  static void ExpectAll(const GpuRanksOptions& options,
                        const std::function<absl::Status(LocalRank&)>& body) {
    for (const absl::Status& status : RunGpuRanks(options, body)) {
      LASP_EXPECT_OK(status);
    }
  }
};

// A tensor of fp32 on the device.
class DeviceVector {
 public:
  DeviceVector(Backend* backend, const std::vector<float>& values) : backend_(*backend) {
    const auto count = static_cast<int64_t>(values.size());
    arena_ = Arena::Create(backend_, count * 4 + 256).value();
    tensor_ = arena_.Take(MemoryUse::kWorkspace, DType::kFloat32, 1, count);
    backend_.CopyFromHost(values.data(), tensor_);
  }

  Tensor tensor() const { return tensor_; }

  std::vector<float> Read() const {
    std::vector<float> values(static_cast<size_t>(tensor_.count()));
    backend_.CopyToHost(tensor_, values.data());
    return values;
  }

 private:
  Backend& backend_;
  Arena arena_;
  Tensor tensor_;
};

TEST_F(NcclWorldTest, WhatIsSentAfterAKernelIsWhatTheKernelWrote) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    DeviceVector data(rank.backend, std::vector<float>(1 << 20, 0));
    for (int round = 1; round <= 20; ++round) {
      if (rank.sp->rank() == 0) {
        rank.backend->Fill(round, data.tensor());
        LASP_RETURN_IF_ERROR(rank.sp->Send(data.tensor(), 1).Wait());
      } else {
        Operation received = rank.sp->Receive(data.tensor(), 0);
        LASP_RETURN_IF_ERROR(received.Wait());
        rank.backend->Axpy(1, data.tensor(), data.tensor());
        const std::vector<float> values = data.Read();
        EXPECT_EQ(values.front(), 2 * round);
        EXPECT_EQ(values.back(), 2 * round);
      }
    }
    EXPECT_EQ(rank.sp->counters().sent_bytes,
              rank.sp->rank() == 0 ? 20 * (4 << 20) + (1 << 20) : 1 << 20);
    return absl::OkStatus();
  });
}

TEST_F(NcclWorldTest, WhatRunsBetweenAReceiveAndASendIsInItsTurn) {
  ExpectAll({.sp_size = 2}, [](LocalRank& rank) -> absl::Status {
    DeviceVector data(rank.backend, std::vector<float>(4096, 3));
    if (rank.sp->rank() == 0) {
      Operation added = rank.sp->Run([&] {
        rank.backend->Axpy(2, data.tensor(), data.tensor());
        return absl::OkStatus();
      });
      LASP_RETURN_IF_ERROR(rank.sp->Send(data.tensor(), 1).Wait());
      return added.Wait();
    }
    LASP_RETURN_IF_ERROR(rank.sp->Receive(data.tensor(), 0).Wait());
    EXPECT_EQ(data.Read(), std::vector<float>(4096, 9));
    return absl::OkStatus();
  });
}

TEST_F(NcclWorldTest, SumsAreTheSameBitsOnEveryRankAndInEveryRun) {
  std::vector<std::vector<float>> runs;
  runs.reserve(2);
  for (int run = 0; run < 2; ++run) {
    std::vector<std::vector<float>> results(2);
    ExpectAll({.sp_size = 1, .dp_size = 2}, [&](LocalRank& rank) -> absl::Status {
      std::vector<float> values(3'000'001);
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = std::sin(static_cast<float>(i + 7 * static_cast<size_t>(rank.grid.rank())));
      }
      DeviceVector data(rank.backend, values);
      LASP_RETURN_IF_ERROR(rank.world->AllReduceSum(data.tensor()).Wait());
      results[static_cast<size_t>(rank.grid.rank())] = data.Read();
      return absl::OkStatus();
    });
    EXPECT_EQ(results[0], results[1]);
    EXPECT_NEAR(results[0][1], std::sin(1.0) + std::sin(8.0), 1e-6);
    runs.push_back(results[0]);
  }
  EXPECT_EQ(runs[0], runs[1]);
}

TEST_F(NcclWorldTest, APeerThatDoesNotComeEndsTheWaitWithAReason) {
  const absl::Duration begin = SystemClock().Monotonic();
  std::latch waited(1);
  const std::vector<absl::Status> statuses = RunGpuRanks(
      {.sp_size = 2, .timeout = absl::Seconds(5)}, [&](LocalRank& rank) -> absl::Status {
        if (rank.sp->rank() == 1) {
          // Hangs, as a rank does whose host has gone: it sends nothing and closes nothing.
          waited.wait();
          return absl::AbortedError("this one leaves");
        }
        DeviceVector data(rank.backend, std::vector<float>(4096, 3));
        LASP_RETURN_IF_ERROR(rank.sp->Receive(data.tensor(), 1).Wait());
        // The abort lets the kernel go that would wait for ever.
        absl::Status status = rank.backend->Synchronize();
        status.Update(rank.world->Barrier().Wait());
        waited.count_down();
        return status;
      });
  EXPECT_THAT(statuses[1], StatusIs(absl::StatusCode::kAborted, HasSubstr("leaves")));
  EXPECT_THAT(statuses[0].code(),
              AnyOf(absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnavailable));
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(40));
}

TEST(NcclIdTest, MulticastMustBeOff) {
  ASSERT_EQ(setenv("NCCL_NVLS_ENABLE", "2", 1), 0);
  EXPECT_THAT(MakeNcclId().status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("NCCL_NVLS_ENABLE is 2")));
  ASSERT_EQ(unsetenv("NCCL_NVLS_ENABLE"), 0);
  EXPECT_THAT(MakeNcclId().status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not set")));
}

}  // namespace
}  // namespace lasp::worker
