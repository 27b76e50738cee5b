#include "worker/checkpoint/tensor_share.h"

#include <gtest/gtest.h>

#include <map>

#include "proto/checkpoint/extent_cover.h"
#include "tests/support/status_matchers.h"

namespace lasp::worker {
namespace {

TEST(TensorShareTest, EveryElementIsOneRanks) {
  for (const int64_t elements : {int64_t{1}, int64_t{63}, int64_t{64}, int64_t{65}, int64_t{1000},
                                 int64_t{64} * 9, int64_t{1} << 45}) {
    for (int world = 1; world <= 9; ++world) {
      int64_t next = 0;
      for (int rank = 0; rank < world; ++rank) {
        const TensorShare share = ShareOf(elements, world, rank);
        EXPECT_EQ(share.begin, next);
        EXPECT_GE(share.count, 0);
        EXPECT_EQ(share.begin % 64 == 0 || share.count == 0, true);
        // Equal but for one piece.
        EXPECT_LE(share.count, (elements / 64 / world + 1) * 64);
        next += share.count;
      }
      EXPECT_EQ(next, elements);
    }
  }
}

TEST(TensorShareTest, ExtentsCoverEveryTensorForAnyWorld) {
  for (const bool tied : {true, false}) {
    const ParameterLayout layout({.layers = 2,
                                  .hidden_size = 6,
                                  .heads = 2,
                                  .glu_size = 5,
                                  .vocab_size = 11,
                                  .tie_embeddings = tied,
                                  .learned_theta = true});
    google::protobuf::RepeatedPtrField<lasp::v1::CheckpointTensor> tensors;
    for (const lasp::v1::CheckpointTensor& tensor : CheckpointTensors(layout)) {
      *tensors.Add() = tensor;
    }
    EXPECT_EQ(static_cast<size_t>(tensors.size()), 3 * layout.parameters().size());
    for (int world = 1; world <= 9; ++world) {
      google::protobuf::RepeatedPtrField<lasp::v1::CheckpointShard> shards;
      for (int rank = 0; rank < world; ++rank) {
        const TensorShare share = ShareOf(layout.count(), world, rank);
        lasp::v1::CheckpointShard& shard = *shards.Add();
        shard.set_file(std::string(1, static_cast<char>('a' + rank)));
        shard.set_size_bytes(3 * share.count * 4);
        int64_t filled = 0;
        for (const lasp::v1::TensorExtent& extent : ExtentsOf(layout, {share})) {
          EXPECT_EQ(extent.offset_bytes(), filled);
          filled += extent.count() * 4;
          *shard.add_extents() = extent;
        }
        EXPECT_EQ(filled, shard.size_bytes());
      }
      LASP_EXPECT_OK(CheckCover(tensors, shards)) << "world " << world;
    }
  }
}

}  // namespace
}  // namespace lasp::worker
