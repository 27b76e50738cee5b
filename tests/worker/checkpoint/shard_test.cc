// What a rank writes is a safetensors file, and what worlds of other sizes read is what was
// written.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/checkpoint_folder.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/checkpoint/commit.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/checkpoint/checkpoint_folder.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/checkpoint/restore.h"
#include "worker/checkpoint/shard_file.h"

namespace lasp::worker {

namespace {

using ::lasp::testing::StatusIs;
using ::lasp::testing::TempDirectory;
using ::testing::HasSubstr;

constexpr char kFolder[] = "p/uid";

// Large enough for several blocks of a shard, small enough for nine ranks of a test.
ModelConfig Config(bool small) {
  return {.layers = 2,
          .hidden_size = small ? 8 : 256,
          .heads = 2,
          .glu_size = small ? 10 : 300,
          .vocab_size = small ? 11 : 1000,
          .tie_embeddings = true,
          .learned_theta = true};
}

class ShardTest : public ::testing::Test {
 protected:
  ShardTest() {
    std::filesystem::create_directories(root_.Join(kFolder));
    FillDefaults(&spec_);
  }

  // Gives `values` to the ranks of a world, which save them.
  lasp::v1::CheckpointReference Save(const ParameterLayout& layout, int world, int64_t generation,
                                     std::vector<float> values) {
    std::vector<lasp::v1::ShardWritten> shards(static_cast<size_t>(world));
    ExpectLocalRanks({.sp_size = world}, [&](LocalRank& rank) -> absl::Status {
      lasp::v1::Fence fence;
      fence.set_rank(rank.grid.rank());
      fence.set_generation(generation);
      LASP_ASSIGN_OR_RETURN(
          const auto writer,
          CheckpointWriter::Create({.root = root_.path(),
                                    .folder = kFolder,
                                    .fence = fence,
                                    .world_size = world,
                                    .layout = &layout,
                                    .backend = rank.backend,
                                    .tensors = Parts(values),
                                    .on_shard = [&](const lasp::v1::ShardWritten& shard) {
                                      shards[static_cast<size_t>(shard.fence().rank())] = shard;
                                    }}));
      lasp::v1::TrainingState state;
      state.set_step(7);
      writer->Begin(state);
      return writer->WaitUntilIdle(absl::Seconds(60)) ? absl::OkStatus()
                                                      : absl::DeadlineExceededError("writing");
    });
    const auto reference = CommitCheckpoint(root_.path(), kFolder, spec_, shards);
    LASP_EXPECT_OK(reference);
    return reference.ok() ? *reference : lasp::v1::CheckpointReference();
  }

  // What every rank of a world has after it has restored.
  void Restores(const ParameterLayout& layout, int world,
                const lasp::v1::CheckpointReference& reference, const std::vector<float>& want) {
    ExpectLocalRanks({.sp_size = world}, [&](LocalRank& rank) -> absl::Status {
      std::vector<float> values(want.size());
      LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingState state,
                            Restore({.root = root_.path(),
                                     .reference = reference,
                                     .spec = spec_,
                                     .layout = &layout,
                                     .backend = rank.backend,
                                     .world = rank.world,
                                     .tensors = Parts(values),
                                     .give_up = [] { return false; }}));
      return state.step() == 7 && values == want ? absl::OkStatus()
                                                 : absl::InternalError("not what was saved");
    });
  }

  static TrainingTensors Parts(std::vector<float>& values) {
    const auto count = static_cast<int64_t>(values.size()) / 3;
    const auto part = [&](int64_t index) {
      return Tensor{values.data() + index * count, DType::kFloat32, 1, count, count};
    };
    return {part(0), part(1), part(2)};
  }

  static std::vector<float> Numbered(const ParameterLayout& layout) {
    std::vector<float> values(static_cast<size_t>(3 * layout.count()));
    std::iota(values.begin(), values.end(), 1.0f);
    return values;
  }

  std::string Content(const std::string& path) {
    std::ifstream file(root_.Join(path), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDirectory root_;
  lasp::v1::TrainingSpec spec_;
};

TEST_F(ShardTest, AShardIsASafetensorsFile) {
  const ParameterLayout layout(Config(true));
  const std::vector<float> values = Numbered(layout);
  const auto reference = Save(layout, 2, 3, values);
  // As the format's description has it, and no more.
  size_t found = 0;
  for (int rank = 0; rank < 2; ++rank) {
    const std::string file =
        Content(absl::StrCat(reference.folder(), "/rank-", rank, ".safetensors"));
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    ASSERT_EQ((8 + length) % 64, 0u);
    const nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
    EXPECT_EQ(header["__metadata__"]["step"], "7");
    EXPECT_EQ(header["__metadata__"]["generation"], "3");
    EXPECT_EQ(header["__metadata__"]["rank"], absl::StrCat(rank));
    const std::string data = file.substr(8 + length);
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        continue;
      }
      EXPECT_EQ(entry["dtype"], "F32");
      const size_t begin = entry["data_offsets"][0];
      const size_t end = entry["data_offsets"][1];
      EXPECT_EQ(entry["shape"][0], (end - begin) / 4);
      for (size_t at = begin; at < end; at += 4) {
        float value = 0;
        std::memcpy(&value, data.data() + at, 4);
        EXPECT_GE(value, 1);
        ++found;
      }
      // By its name: the embedding's first element is the first of all.
      if (name.rfind("model.embed_tokens.weight[0:", 0) == 0) {
        float first = 0;
        std::memcpy(&first, data.data() + begin, 4);
        EXPECT_EQ(first, 1);
      }
    }
  }
  EXPECT_EQ(found, values.size());
}

TEST_F(ShardTest, AnyWorldReadsWhatAnyOtherWrote) {
  const ParameterLayout layout(Config(true));
  const std::vector<float> values = Numbered(layout);
  int64_t generation = 1;
  for (const int writers : {1, 2, 5, 9}) {
    const auto reference = Save(layout, writers, generation++, values);
    for (const int readers : {1, 3, 8}) {
      SCOPED_TRACE(absl::StrCat(writers, " wrote, ", readers, " read"));
      Restores(layout, readers, reference, values);
    }
  }
}

TEST_F(ShardTest, SharesOfManyBlocksToo) {
  const ParameterLayout layout(Config(false));
  ASSERT_GT(12 * layout.count(), 2 * (int64_t{4} << 20));
  const std::vector<float> values = Numbered(layout);
  Restores(layout, 2, Save(layout, 1, 1, values), values);
  Restores(layout, 1, Save(layout, 3, 2, values), values);
}

// Manifests stay as they were written, and so does their digest of the spec.
TEST_F(ShardTest, AManifestOfAnotherReleaseIsOfTheSameSpec) {
  const ParameterLayout layout(Config(true));
  const std::vector<float> values = Numbered(layout);
  spec_.set_max_steps(20);
  auto reference = Save(layout, 2, 1, values);
  const std::string path = absl::StrCat(reference.folder(), "/", kManifestFile);
  const auto manifest = ParseManifest(Content(path));
  LASP_ASSERT_OK(manifest);
  const auto rewrite = [&](const lasp::v1::CheckpointManifest& changed) {
    const std::string text = ManifestText(changed).value();
    root_.Write(path, text);
    reference.set_manifest_digest(ManifestDigest(text));
  };
  // Of before there were these fields.
  lasp::v1::CheckpointManifest older = *manifest;
  older.mutable_spec()->mutable_model()->clear_layer_pattern();
  older.mutable_spec()->mutable_data()->clear_documents();
  older.mutable_spec()->mutable_optimizer()->clear_state_type();
  older.set_spec_digest(SpecDigest(older.spec()));
  rewrite(older);
  Restores(layout, 2, reference, values);
  // Of one with a field that is not read in it.
  lasp::v1::CheckpointManifest later = *manifest;
  later.mutable_spec()->clear_max_steps();
  rewrite(later);
  Restores(layout, 2, reference, values);
}

TEST_F(ShardTest, MoreRanksThanElementsLeaveSomeWithNothing) {
  const ParameterLayout layout({.layers = 1,
                                .hidden_size = 2,
                                .heads = 1,
                                .glu_size = 2,
                                .vocab_size = 3,
                                .tie_embeddings = true,
                                .learned_theta = false});
  ASSERT_LT(layout.count(), 64);
  const std::vector<float> values = Numbered(layout);
  Restores(layout, 3, Save(layout, 4, 1, values), values);
}

TEST_F(ShardTest, WhatIsGivenUpLeavesNothing) {
  const auto folder = OpenFolderBeneath(root_.path(), kFolder);
  LASP_ASSERT_OK(folder);
  const std::string data(1000, 'x');
  const std::vector<ShardPiece> pieces = {{.data = data}};
  EXPECT_THAT(WriteShardFile(*folder, "rank-0.safetensors", "it", pieces, [] { return false; }),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("it")));
  EXPECT_TRUE(std::filesystem::is_empty(root_.Join(kFolder)));
  // What an attempt before it left does not matter.
  root_.Write(absl::StrCat(kFolder, "/rank-0.safetensors.tmp"), std::string(5000, 'y'));
  LASP_EXPECT_OK(WriteShardFile(*folder, "rank-0.safetensors", "it", pieces, [] { return true; }));
  EXPECT_EQ(Content(absl::StrCat(kFolder, "/rank-0.safetensors")), data);
}

TEST_F(ShardTest, WhatIsBf16IsWrittenAsFp32) {
  const auto folder = OpenFolderBeneath(root_.path(), kFolder);
  LASP_ASSERT_OK(folder);
  // More than a part that is written at once.
  const std::vector<uint16_t> narrow(600'000, 0x4049);
  const std::vector<float> wide(narrow.size(), 3.140625F);
  const std::string head = "head";
  const auto shard = WriteShardFile(
      *folder, "rank-0.safetensors", "it",
      {{.data = head},
       {.data = {reinterpret_cast<const char*>(narrow.data()), 2 * narrow.size()}, .widens = true}},
      [] { return true; });
  LASP_ASSERT_OK(shard);
  EXPECT_EQ(shard->size_bytes(), 4 + 4 * static_cast<int64_t>(wide.size()));
  EXPECT_EQ(Content(absl::StrCat(kFolder, "/rank-0.safetensors")),
            head + std::string(reinterpret_cast<const char*>(wide.data()), 4 * wide.size()));
}

TEST_F(ShardTest, AWriterThatIsNotWaitedForLeavesNoHalfFile) {
  const ParameterLayout layout(Config(false));
  std::vector<float> values = Numbered(layout);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1);
  LASP_ASSERT_OK(backend);
  for (int64_t step = 1; step <= 5; ++step) {
    auto writer = CheckpointWriter::Create({.root = root_.path(),
                                            .folder = kFolder,
                                            .fence = {},
                                            .world_size = 1,
                                            .layout = &layout,
                                            .backend = backend->get(),
                                            .tensors = Parts(values),
                                            .on_shard = [](const lasp::v1::ShardWritten&) {}});
    LASP_ASSERT_OK(writer);
    lasp::v1::TrainingState state;
    state.set_step(step);
    (*writer)->Begin(state);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_.path())) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
}

TEST_F(ShardTest, AWriterWithoutItsRootSaysSo) {
  const ParameterLayout layout(Config(true));
  std::vector<float> values = Numbered(layout);
  const auto backend = CreateCpuBackend(DType::kFloat32, 1);
  LASP_ASSERT_OK(backend);
  std::vector<lasp::v1::ShardWritten> shards;
  CheckpointWriter::Options options{
      .root = root_.Join("none"),
      .folder = kFolder,
      .fence = {},
      .world_size = 1,
      .layout = &layout,
      .backend = backend->get(),
      .tensors = Parts(values),
      .on_shard = [&](const lasp::v1::ShardWritten& shard) { shards.push_back(shard); }};
  const auto writer = CheckpointWriter::Create(options);
  LASP_ASSERT_OK(writer);
  (*writer)->Begin({});
  ASSERT_TRUE((*writer)->WaitUntilIdle(absl::Seconds(60)));
  ASSERT_EQ(shards.size(), 1u);
  EXPECT_THAT(std::string(shards[0].status().message()), HasSubstr("--checkpoint_root"));
  EXPECT_FALSE(shards[0].has_shard());
  EXPECT_EQ((*writer)->totals().failed(), 1);
  options.folder = "../p";
  EXPECT_THAT(CheckpointWriter::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../p")));
}

}  // namespace
}  // namespace lasp::worker
