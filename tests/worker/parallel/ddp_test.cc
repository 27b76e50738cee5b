#include <gtest/gtest.h>

#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

TEST(DdpTest, ReducesEveryElementOnceAStepWhateverTheBuckets) {
  constexpr int64_t kCount = 1000;
  for (const int64_t bucket : {1000, 2000, 300, 7}) {
    ExpectLocalRanks({.sp_size = 1, .dp_size = 3}, [&](LocalRank& rank) -> absl::Status {
      std::vector<float> gradients(kCount);
      const auto ddp =
          CreateDdp(rank.world, {gradients.data(), DType::kFloat32, 1, kCount, kCount}, bucket);
      for (int64_t step = 1; step <= 2; ++step) {
        for (int64_t i = 0; i < kCount; ++i) {
          gradients[static_cast<size_t>(i)] =
              static_cast<float>(step * (rank.grid.rank() + 1) * (i + 1));
        }
        ddp->GradientsFinalFrom(900);
        ddp->GradientsFinalFrom(450);
        LASP_RETURN_IF_ERROR(ddp->Finish());
        for (int64_t i = 0; i < kCount; ++i) {
          EXPECT_EQ(gradients[static_cast<size_t>(i)], static_cast<float>(6 * step * (i + 1)));
        }
      }
      return absl::OkStatus();
    });
  }
}

TEST(DdpTest, LeavesAloneWhatIsNotFinalYet) {
  constexpr int64_t kCount = 1000;
  ExpectLocalRanks({.sp_size = 1, .dp_size = 2}, [&](LocalRank& rank) -> absl::Status {
    std::vector<float> gradients(kCount, 1);
    const auto ddp =
        CreateDdp(rank.world, {gradients.data(), DType::kFloat32, 1, kCount, kCount}, 300);
    // Buckets begin at 900, 600, 300 and 0.
    ddp->GradientsFinalFrom(650);
    // Operations run in order, so the bucket that was issued is complete after this.
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    EXPECT_EQ(gradients[900], 2);
    EXPECT_EQ(gradients[899], 1);
    gradients[0] = 5;
    LASP_RETURN_IF_ERROR(ddp->Finish());
    EXPECT_EQ(gradients[899], 2);
    EXPECT_EQ(gradients[0], 10);
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lasp::worker
