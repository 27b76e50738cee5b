#include <gtest/gtest.h>

#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {
namespace {

constexpr int64_t kCount = 1000;

// Over units of 450, 450 and 100 elements.
struct DdpUnderTest {
  DdpUnderTest(LocalRank& rank, int64_t bucket) {
    const DataParallelOptions options{.backend = rank.backend,
                                      .world = rank.world,
                                      .units = {{0, 450, 0}, {450, 450, 1}, {900, 100, 0}}};
    Arena plan;
    CreateDdp(options, bucket, plan);
    arena = Arena::Create(*rank.backend, plan.used_bytes()).value();
    ddp = CreateDdp(options, bucket, arena);
    gradients = static_cast<float*>(ddp->owned()[0].gradient.data);
  }

  Arena arena;
  std::unique_ptr<DataParallel> ddp;
  float* gradients = nullptr;  // [kCount]
};

TEST(DdpTest, ReducesEveryElementOnceAStepWhateverTheBuckets) {
  for (const int64_t bucket : {1000, 2000, 300, 7}) {
    ExpectLocalRanks({.sp_size = 1, .dp_size = 3}, [&](LocalRank& rank) -> absl::Status {
      const DdpUnderTest made(rank, bucket);
      for (int64_t step = 1; step <= 2; ++step) {
        for (int64_t i = 0; i < kCount; ++i) {
          made.gradients[i] = static_cast<float>(step * (rank.grid.rank() + 1) * (i + 1));
        }
        // Of a micro-batch that is not the last nothing is reduced.
        for (const bool last : {false, true}) {
          for (const int64_t unit : {2, 1, 0}) {
            made.ddp->GradientsDone(unit, last);
          }
        }
        LASP_RETURN_IF_ERROR(made.ddp->Finish());
        for (int64_t i = 0; i < kCount; ++i) {
          EXPECT_EQ(made.gradients[i], static_cast<float>(6 * step * (i + 1)));
        }
      }
      return absl::OkStatus();
    });
  }
}

TEST(DdpTest, LeavesAloneWhatIsNotFinalYet) {
  ExpectLocalRanks({.sp_size = 1, .dp_size = 2}, [&](LocalRank& rank) -> absl::Status {
    const DdpUnderTest made(rank, 300);
    std::fill_n(made.gradients, kCount, 1.0F);
    // Buckets begin at 900, 600, 300 and 0; what is above 450 is final.
    made.ddp->GradientsDone(2, true);
    made.ddp->GradientsDone(1, true);
    // Operations run in order, so the buckets that were issued are complete after this.
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    EXPECT_EQ(made.gradients[900], 2);
    EXPECT_EQ(made.gradients[600], 2);
    EXPECT_EQ(made.gradients[599], 1);
    made.gradients[0] = 5;
    made.ddp->GradientsDone(0, true);
    LASP_RETURN_IF_ERROR(made.ddp->Finish());
    EXPECT_EQ(made.gradients[599], 2);
    EXPECT_EQ(made.gradients[0], 10);
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lasp::worker
