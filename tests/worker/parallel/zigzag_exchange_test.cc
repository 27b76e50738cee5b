// Halves of slices change places, and all ranks get as much to compute.
#include "worker/parallel/zigzag_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/device/arena.h"

namespace lasp::worker {
namespace {

TEST(ZigzagChunks, EachChunkIsComputedOnce) {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    const ZigzagChunks chunks{ranks};
    std::set<int> seen;
    for (int rank = 0; rank < ranks; ++rank) {
      for (int place = 0; place < 2; ++place) {
        const int chunk = chunks.At(rank, place);
        EXPECT_EQ(chunk % 2, place);
        EXPECT_EQ(chunks.RankOf(chunk), rank);
        seen.insert(chunk);
      }
      EXPECT_LT(chunks.At(rank, ZigzagChunks::EarlierPlace(rank)),
                chunks.At(rank, 1 - ZigzagChunks::EarlierPlace(rank)));
    }
    EXPECT_EQ(seen.size(), 2U * static_cast<size_t>(ranks));
    EXPECT_EQ(*seen.rbegin(), 2 * ranks - 1);
  }
}

// A chunk sees all before it and half of itself: in halves, 2 chunk + 1.
TEST(ZigzagChunks, EveryRankComputesAsMuch) {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    const ZigzagChunks chunks{ranks};
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(2 * chunks.At(rank, 0) + 1 + 2 * chunks.At(rank, 1) + 1, 4 * ranks);
    }
  }
}

TEST(ZigzagExchange, ThereAreTheOthersHalvesAndBackTheSlices) {
  constexpr int64_t kBatch = 3;
  constexpr int64_t kTokens = 10;
  constexpr int64_t kColumns = 4;
  for (const int ranks : {2, 3, 4, 5}) {
    ExpectLocalRanks({.sp_size = ranks}, [&](LocalRank& rank) -> absl::Status {
      Tensor slice;
      Tensor wide;
      Tensor zigzag;
      ZigzagExchange exchange(rank.backend, rank.sp);
      const auto take = [&](Arena& arena) {
        const int64_t rows = kBatch * kTokens;
        // A slice is columns of something wider.
        wide = arena.Take(MemoryUse::kActivations, DType::kFloat32, rows, 3 * kColumns);
        slice = wide.Columns(kColumns, kColumns);
        zigzag = arena.Take(MemoryUse::kActivations, DType::kFloat32, rows, kColumns);
        exchange.TakeScratch(rows, kColumns, arena);
      };
      Arena plan;
      take(plan);
      LASP_ASSIGN_OR_RETURN(Arena arena, Arena::Create(*rank.backend, plan.used_bytes()));
      take(arena);
      // Sequence, token and column say what lies where.
      const auto value = [](int64_t sequence, int64_t token, int64_t column) {
        return static_cast<float>(1000 * sequence + 10 * token + column);
      };
      const auto at = [](Tensor tensor, int64_t row, int64_t column) -> float& {
        return static_cast<float*>(tensor.data)[row * tensor.row_stride + column];
      };
      for (int64_t row = 0; row < slice.rows; ++row) {
        for (int64_t column = 0; column < kColumns; ++column) {
          at(slice, row, column) =
              value(row / kTokens, rank.sp->rank() * kTokens + row % kTokens, column);
        }
      }
      Operation scattered = exchange.Scatter(kBatch, {.slice = slice, .zigzag = zigzag}, /*way=*/1);
      LASP_RETURN_IF_ERROR(scattered.Wait());
      constexpr int64_t kHalf = kTokens / 2;
      for (int place = 0; place < 2; ++place) {
        const Tensor half = ZigzagExchange::Place(zigzag, place);
        const int64_t first = exchange.chunks().At(rank.sp->rank(), place) * kHalf;
        for (int64_t row = 0; row < half.rows; ++row) {
          EXPECT_EQ(at(half, row, 3), value(row / kHalf, first + row % kHalf, 3))
              << "of " << ranks << ", rank " << rank.sp->rank() << ", place " << place;
        }
      }
      std::vector<float> before(static_cast<size_t>(wide.count()));
      std::copy_n(static_cast<float*>(wide.data), wide.count(), before.begin());
      for (int64_t row = 0; row < slice.rows; ++row) {
        std::fill_n(&at(slice, row, 0), kColumns, -1.0F);
      }
      LASP_RETURN_IF_ERROR(exchange.Gather(kBatch, {{.slice = slice, .zigzag = zigzag}}));
      EXPECT_TRUE(std::equal(before.begin(), before.end(), static_cast<float*>(wide.data)));
      return absl::OkStatus();
    });
  }
}

}  // namespace
}  // namespace lasp::worker
