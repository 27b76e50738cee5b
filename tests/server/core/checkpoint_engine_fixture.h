// A job whose agent writes real files, and a disk that does what it is told.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "proto/checkpoint/block_digests.h"
#include "proto/checkpoint/manifest.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {

class CheckpointEngineTest : public ::testing::Test {
 protected:
  CheckpointEngineTest() : harness_(Options(root_.path())) {}

  static CoreOptions Options(const std::string& root) {
    CoreOptions options;
    options.checkpoint_root = root;
    return options;
  }

  // A job of two ranks on one agent, which train.
  void SetUp() override {
    agent_ = harness_.AddAgent("host", 4);
    job_ = harness_.Submit("job", 2);
    ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  }

  const lasp::v1::Assignment& LastAssignment() const {
    for (auto message = agent_->received.rbegin(); message != agent_->received.rend(); ++message) {
      if (message->has_assignment()) {
        return message->assignment();
      }
    }
    return lasp::v1::Assignment::default_instance();
  }

  std::string Folder(int64_t step, int64_t generation) const {
    return absl::StrCat(LastAssignment().checkpoint_folder(), "/",
                        CheckpointFolderName(step, generation));
  }

  std::filesystem::path OnDisk(int64_t step, int64_t generation) const {
    return std::filesystem::path(root_.path()) / Folder(step, generation);
  }

  // A rank writes its half of a tensor of 20 elements, and says so.
  lasp::v1::ConnectRequest Written(int rank, int64_t step) {
    const lasp::v1::Fence& fence = agent_->Find(job_, rank)->fence;
    const std::filesystem::path folder = OnDisk(step, fence.generation());
    std::filesystem::create_directories(folder);
    const std::string bytes(48, static_cast<char>('a' + rank));
    std::ofstream(folder / ShardFileName(rank)) << bytes;
    lasp::v1::ConnectRequest message;
    auto* const written = message.mutable_shard_written();
    *written->mutable_fence() = fence;
    written->set_step(step);
    auto* const shard = written->mutable_shard();
    shard->set_file(ShardFileName(rank));
    shard->set_size_bytes(static_cast<int64_t>(bytes.size()));
    shard->set_block_bytes(kCheckpointBlockBytes);
    shard->set_block_digests(BlockDigest(bytes.data(), bytes.size()));
    auto* const extent = shard->add_extents();
    extent->set_tensor("weight");
    extent->set_begin(int64_t{10} * rank);
    extent->set_count(10);
    extent->set_offset_bytes(8);
    if (rank == 0) {
      auto* const tensor = written->add_tensors();
      tensor->set_name("weight");
      tensor->set_dtype("F32");
      tensor->add_shape(20);
      written->mutable_state()->set_step(step);
    }
    return message;
  }

  void Tell(lasp::v1::ConnectRequest message) {
    harness_.Deliver(agent_, std::move(message));
    harness_.Pump();
  }

  void Save(int64_t step) {
    Tell(Written(0, step));
    Tell(Written(1, step));
  }

  void KillRanks() {
    harness_.ExitAll(job_, 128 + 9);
    harness_.Advance(absl::Seconds(10));
  }

  std::vector<lasp::v1::Checkpoint> All() const {
    return *harness_.checkpoints->Find(harness_.Get(job_).uid());
  }

  lasp::v1::Checkpoint At(int64_t step) const {
    for (const lasp::v1::Checkpoint& checkpoint : All()) {
      if (checkpoint.step() == step) {
        return checkpoint;
      }
    }
    return {};
  }

  std::vector<int64_t> Steps() const {
    std::vector<int64_t> steps;
    for (const lasp::v1::Checkpoint& checkpoint : All()) {
      steps.push_back(checkpoint.step());
    }
    return steps;
  }

  static void FlipABit(const std::filesystem::path& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(20);
    const char byte = static_cast<char>(file.get());
    file.seekp(20);
    file.put(static_cast<char>(byte ^ 4));
  }

  testing::TempDirectory root_;
  EngineHarness harness_;
  FakeAgent* agent_ = nullptr;
  std::string job_;
};

}  // namespace lasp::server
