#include "proto/checkpoint/manifest.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "proto/checkpoint/block_digests.h"
#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

lasp::v1::CheckpointManifest Small() {
  lasp::v1::CheckpointManifest manifest;
  manifest.set_format_version(kManifestVersion);
  manifest.set_training_job("projects/p/trainingJobs/j");
  manifest.set_step(20);
  manifest.set_generation(2);
  manifest.mutable_state()->set_step(20);
  lasp::v1::CheckpointTensor* const tensor = manifest.add_tensors();
  tensor->set_name("model.embed_tokens.weight");
  tensor->set_dtype("F32");
  tensor->add_shape(10);
  lasp::v1::CheckpointShard* const shard = manifest.add_shards();
  shard->set_file(ShardFileName(0));
  shard->set_size_bytes(60);
  shard->set_block_bytes(kCheckpointBlockBytes);
  shard->set_block_digests(BlockDigest("x", 1));
  lasp::v1::TensorExtent* const extent = shard->add_extents();
  extent->set_tensor(tensor->name());
  extent->set_count(10);
  extent->set_offset_bytes(20);
  return manifest;
}

void ExpectRefused(const lasp::v1::CheckpointManifest& manifest, const char* words) {
  const absl::StatusOr<std::string> text = ManifestText(manifest);
  LASP_ASSERT_OK(text.status());
  EXPECT_THAT(ParseManifest(*text).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(words)));
}

TEST(Manifest, IsReadAsWritten) {
  const absl::StatusOr<std::string> text = ManifestText(Small());
  LASP_ASSERT_OK(text.status());
  EXPECT_THAT(*text, HasSubstr("\"training_job\": \"projects/p/trainingJobs/j\""));
  const absl::StatusOr<lasp::v1::CheckpointManifest> read = ParseManifest(*text);
  LASP_ASSERT_OK(read.status());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*read, Small()));
}

TEST(Manifest, OfALaterReleaseOfThisVersionIsRead) {
  std::string text = ManifestText(Small()).value();
  text.insert(1, "\"said_by_a_later_release\": [1, {}],");
  LASP_EXPECT_OK(ParseManifest(text).status());
}

TEST(Manifest, TornAnywhereIsNone) {
  const std::string text = ManifestText(Small()).value();
  // The last two characters close it and end the line.
  for (size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_THAT(ParseManifest(text.substr(0, size)).status(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")))
        << size;
  }
}

TEST(Manifest, WhatIsNotWholeIsRefused) {
  lasp::v1::CheckpointManifest manifest = Small();
  manifest.set_format_version(2);
  ExpectRefused(manifest, "a manifest of version 2, not 1");
  manifest = Small();
  manifest.mutable_state()->set_step(19);
  ExpectRefused(manifest, "step 20 with the state after step 19");
  for (const char* const name : {"", ".", "..", "../rank-0.safetensors", "/etc/passwd"}) {
    manifest = Small();
    manifest.mutable_shards(0)->set_file(name);
    ExpectRefused(manifest, "a shard's file is called");
  }
  manifest = Small();
  manifest.mutable_shards(0)->mutable_block_digests()->pop_back();
  ExpectRefused(manifest, "the digests of rank-0.safetensors are not those of 60 bytes");
  manifest = Small();
  manifest.mutable_shards(0)->set_block_bytes(0);
  ExpectRefused(manifest, "the digests of rank-0.safetensors");
  manifest = Small();
  manifest.mutable_shards(0)->set_size_bytes(int64_t{1} << 60);
  ExpectRefused(manifest, "the digests of rank-0.safetensors");
  manifest = Small();
  *manifest.add_shards() = manifest.shards(0);
  ExpectRefused(manifest, "two shards are called rank-0.safetensors");
  manifest = Small();
  manifest.mutable_shards(0)->clear_extents();
  ExpectRefused(manifest, "element 0 of 'model.embed_tokens.weight' is in no shard");
}

TEST(Manifest, TheSpecsDigestIsOfWhatDecidesTheLosses) {
  lasp::v1::TrainingSpec spec;
  spec.set_max_steps(10);
  const std::string digest = SpecDigest(spec);
  EXPECT_EQ(digest.size(), 64);
  spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(4);
  spec.set_device(lasp::v1::TrainingSpec::DEVICE_GPU);
  spec.mutable_checkpoint()->set_interval_steps(5);
  spec.mutable_memory()->set_activations(lasp::v1::MemorySpec::ACTIVATIONS_STREAM);
  EXPECT_EQ(SpecDigest(spec), digest);
  spec.set_max_steps(11);
  EXPECT_NE(SpecDigest(spec), digest);
}

}  // namespace
}  // namespace lasp
