// The coordinator's store under test.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "server/sqlite_job_store.h"
#include "tests/support/sqlite_fault_vfs.h"
#include "tests/support/temp_directory.h"

namespace lasp::server {

// The faults of the file system "faulty".
inline testing::DiskFaults* Faults() {
  static auto* const faults = [] {
    auto* made = new testing::DiskFaults();
    testing::RegisterFaultVfs("faulty", made);
    return made;
  }();
  return faults;
}

inline JobViewPtr MakeJob(int64_t id, lasp::v1::TrainingJob::State state) {
  auto view = std::make_shared<JobView>();
  view->id = id;
  view->revision = id * 10;
  lasp::v1::TrainingSpec spec;
  spec.set_max_steps(id);
  FillDefaults(&spec);
  view->spec = std::make_shared<const std::string>(spec.SerializeAsString());
  view->job.set_name(absl::StrCat("job-", id));
  view->job.set_uid(absl::StrCat("uid-", id));
  view->job.set_state(state);
  view->job.set_generation(2);
  return view;
}

// A store in a folder of its own, on a disk without faults.
class StoreFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.path = directory_.Join("store.sqlite");
    options_.retry_delay = absl::Milliseconds(5);
    options_.max_retry_delay = absl::Milliseconds(20);
    Faults()->full = false;
    Faults()->drop_unsynced = false;
    Faults()->sync_delay_micros = 0;
  }

  absl::Status Open() {
    store_ = nullptr;
    LASP_ASSIGN_OR_RETURN(store_, SqliteJobStore::Open(options_, &observer_));
    return absl::OkStatus();
  }

  // Returns once it is durable.
  void Commit(std::vector<Mutation> mutations) {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    store_->Commit(std::move(mutations), [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      done = true;
      changed.notify_all();
    });
    std::unique_lock<std::mutex> lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&done] { return done; }));
  }

  void PutStepRange(int64_t generation, int64_t first, int64_t last) {
    PutSteps steps{.job_id = 1, .steps = {}};
    for (int64_t step = first; step <= last; ++step) {
      auto& row = steps.steps.emplace_back();
      row.set_step(step);
      row.set_generation(generation);
    }
    Commit({std::move(steps)});
  }

  std::vector<int64_t> Steps(int64_t from, int64_t to, int64_t stride) {
    const auto steps = store_->ReadSteps(1, from, to, stride).value();
    std::vector<int64_t> numbers;
    numbers.reserve(steps.size());
    for (const auto& step : steps) {
      numbers.push_back(step.step());
    }
    return numbers;
  }

  testing::TempDirectory directory_;
  CoreObserver observer_;
  SqliteJobStore::Options options_;
  std::unique_ptr<SqliteJobStore> store_;
};

}  // namespace lasp::server
