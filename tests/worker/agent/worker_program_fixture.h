// lasp-worker as a process, with real (fake) ranks, against a coordinator over real gRPC.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/random_id.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/fake_coordinator.h"
#include "tests/worker/agent/worker_process.h"

namespace lasp::worker::testing {

inline lasp::v1::TrainingSpec Spec(int64_t steps, const std::vector<std::string>& options = {}) {
  lasp::v1::TrainingSpec spec;
  spec.set_max_steps(steps);
  for (const std::string& option : options) {
    spec.mutable_data()->add_train_paths(option);
  }
  return spec;
}

class WorkerProgramFixture : public ::testing::Test {
 protected:
  std::vector<std::string> Arguments(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {
        absl::StrCat("--server=", coordinator_.address()), "--worker_id=w1", "--cpu_slots=4",
        "--gpus=none", "--health_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
        absl::StrCat("--rank_binary=", folder_.Join(rank_name_)),
        absl::StrCat("--work_dir=", folder_.Join("work")),
        // Not in the shared memory of the machine.
        absl::StrCat("--memory_root=", folder_.Join("memory"))};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  void StartWorker(const std::vector<std::string>& more = {}) {
    worker_ = std::make_unique<WorkerProcess>(Arguments(more));
    serving_ = nlohmann::json::parse(worker_->ReadServingLine(), nullptr, false);
    ASSERT_FALSE(serving_.is_discarded()) << worker_->ReadStderr();
    ASSERT_TRUE(coordinator_.WaitFor([&] { return coordinator_.connected; }));
  }

  void TearDown() override {
    if (HasFailure() && worker_ != nullptr) {
      std::cerr << worker_->ReadStderr();
    }
    worker_.reset();
    EXPECT_TRUE(WaitForRanks(rank_name_, 0, absl::Seconds(2)));
  }

  bool WaitForExits(size_t count) {
    return coordinator_.WaitFor([&] { return coordinator_.exits.size() == count; });
  }

  void ExpectSteps(int64_t generation, int64_t count) {
    const auto& steps = coordinator_.steps[generation];
    ASSERT_EQ(static_cast<int64_t>(steps.size()), count);
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(steps[static_cast<size_t>(i)].step(), i + 1);
    }
  }

  // A name of this test's own.
  const std::string rank_name_ = absl::StrCat("rank-", NewUuid().substr(0, 8));
  ::lasp::testing::TempDirectory folder_;
  FakeCoordinator coordinator_;
  nlohmann::json serving_;
  std::unique_ptr<WorkerProcess> worker_;

  void SetUp() override {
    std::filesystem::create_symlink(FAKE_RANK_BINARY, folder_.Join(rank_name_));
    coordinator_.Serve();
  }
};

}  // namespace lasp::worker::testing
