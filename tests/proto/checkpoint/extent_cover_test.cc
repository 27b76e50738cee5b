#include "proto/checkpoint/extent_cover.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// Tensors `a` [4, 5] and `b` [7], cut in two shards.
class ExtentCover : public ::testing::Test {
 protected:
  ExtentCover() {
    Tensor("a", {4, 5});
    Tensor("b", {7});
    lasp::v1::CheckpointShard* const first = manifest_.add_shards();
    first->set_file("first");
    first->set_size_bytes(100);
    Extent(first, "a", 0, 13, 20);
    lasp::v1::CheckpointShard* const second = manifest_.add_shards();
    second->set_file("second");
    second->set_size_bytes(80);
    Extent(second, "b", 0, 7, 24);
    Extent(second, "a", 13, 7, 52);
  }

  void Tensor(const char* name, std::initializer_list<int64_t> shape) {
    lasp::v1::CheckpointTensor* const tensor = manifest_.add_tensors();
    tensor->set_name(name);
    tensor->set_dtype("F32");
    tensor->mutable_shape()->Add(shape.begin(), shape.end());
  }

  static void Extent(lasp::v1::CheckpointShard* shard, const char* tensor, int64_t begin,
                     int64_t count, int64_t offset) {
    lasp::v1::TensorExtent* const extent = shard->add_extents();
    extent->set_tensor(tensor);
    extent->set_begin(begin);
    extent->set_count(count);
    extent->set_offset_bytes(offset);
  }

  lasp::v1::TensorExtent* extent(int shard, int index) {
    return manifest_.mutable_shards(shard)->mutable_extents(index);
  }

  absl::Status Check() const { return CheckCover(manifest_.tensors(), manifest_.shards()); }

  void ExpectLoss(const char* words) const {
    EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(words)));
  }

  lasp::v1::CheckpointManifest manifest_;
};

TEST_F(ExtentCover, WholePasses) { LASP_EXPECT_OK(Check()); }

TEST_F(ExtentCover, AHole) {
  extent(1, 1)->set_begin(14);
  extent(1, 1)->set_count(6);
  ExpectLoss("element 13 of 'a' is in no shard");
}

TEST_F(ExtentCover, AHoleAtTheEnd) {
  extent(1, 1)->set_count(6);
  ExpectLoss("element 19 of 'a' is in no shard");
}

TEST_F(ExtentCover, Twice) {
  extent(1, 1)->set_begin(12);
  extent(1, 1)->set_count(7);
  ExpectLoss("element 12 of 'a' is in more than one shard");
}

TEST_F(ExtentCover, ATensorThatNobodyHolds) {
  Tensor("c", {1});
  ExpectLoss("element 0 of 'c' is in no shard");
}

TEST_F(ExtentCover, ATensorThatNobodyKnows) {
  extent(1, 0)->set_tensor("d");
  ExpectLoss("second holds 'd'");
}

TEST_F(ExtentCover, ATensorNamedTwice) {
  Tensor("a", {4, 5});
  ExpectLoss("'a' is there twice");
}

TEST_F(ExtentCover, OutsideTheFile) {
  for (const int64_t offset : {int64_t{53}, int64_t{-1}, int64_t{81}, kMost}) {
    extent(1, 1)->set_offset_bytes(offset);
    ExpectLoss("'a' does not lie inside second");
  }
}

TEST_F(ExtentCover, OutsideTheTensor) {
  for (const int64_t begin : {int64_t{14}, int64_t{-1}, kMost}) {
    extent(1, 1)->set_begin(begin);
    ExpectLoss("second holds elements");
  }
  extent(1, 1)->set_begin(13);
  for (const int64_t count : {int64_t{0}, int64_t{-7}, kMost}) {
    extent(1, 1)->set_count(count);
    ExpectLoss("second holds elements");
  }
}

TEST_F(ExtentCover, TwoPartsOverEachOther) {
  extent(1, 1)->set_offset_bytes(48);
  ExpectLoss("two parts of second are at byte 48");
}

TEST_F(ExtentCover, AbsurdShapes) {
  for (const int64_t size : {int64_t{0}, int64_t{-4}, kMost, int64_t{1} << 53}) {
    manifest_.mutable_tensors(0)->set_shape(0, size);
    EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'a' has a dim")));
  }
}

TEST_F(ExtentCover, OtherTypes) {
  manifest_.mutable_tensors(0)->set_dtype("I4");
  EXPECT_THAT(Check(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'I4'")));
}

}  // namespace
}  // namespace lasp
