// A supervisor with real processes as ranks, and somebody who is told what becomes of them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/agent/rank_orders.h"
#include "worker/agent/supervisor.h"

namespace lasp::worker::testing {

// Keeps what it is told, and answers ranks as a coordinator would: each is alone and may begin.
class Recorder : public RankObserver {
 public:
  void OnStarted(const lasp::v1::Assignment& assignment) override {
    MutexLock lock(&mutex_);
    started_.push_back(assignment);
    changed_.NotifyAll();
  }

  void OnAddress(const lasp::v1::RankAddress& address) override {
    lasp::v1::PeerAddresses peers;
    *peers.mutable_fence() = address.fence();
    peers.add_addresses(address.address());
    supervisor_->SetPeers(peers);
  }

  void OnReady(const lasp::v1::RankReady& ready) override {
    {
      MutexLock lock(&mutex_);
      ready_ = ready;
    }
    lasp::v1::Start start;
    *start.mutable_fence() = ready.fence();
    supervisor_->Train(start);
  }

  void OnStep(const lasp::v1::Fence& /*fence*/, const lasp::internal::v1::RankStep& step) override {
    MutexLock lock(&mutex_);
    last_step_ = step.step();
    changed_.NotifyAll();
  }

  void OnShard(const lasp::v1::ShardWritten& shard) override {
    MutexLock lock(&mutex_);
    shards_.push_back(shard);
  }

  void OnCheckpoints(const lasp::v1::Fence& /*fence*/,
                     const lasp::internal::v1::CheckpointTotals& totals) override {
    MutexLock lock(&mutex_);
    checkpoints_ = totals.written();
  }

  void OnEnded(const lasp::v1::RankExited& exited) override {
    const std::vector<LiveRank> ranks = supervisor_->Ranks();
    MutexLock lock(&mutex_);
    ended_.push_back(exited);
    ranks_at_end_ = ranks;
    changed_.NotifyAll();
  }

  void Attach(Supervisor* supervisor) { supervisor_ = supervisor; }

  std::vector<lasp::v1::RankExited> WaitForEnds(size_t count) {
    MutexLock lock(&mutex_);
    Wait([&]() REQUIRES_LOCK(mutex_) { return ended_.size() >= count; });
    EXPECT_EQ(ended_.size(), count);
    return ended_;
  }

  void WaitForStep(int64_t step) {
    MutexLock lock(&mutex_);
    Wait([&]() REQUIRES_LOCK(mutex_) { return last_step_ >= step; });
    EXPECT_GE(last_step_, step);
  }

  // Told before the end.
  std::vector<lasp::v1::ShardWritten> shards() {
    MutexLock lock(&mutex_);
    return shards_;
  }

  int64_t checkpoints() {
    MutexLock lock(&mutex_);
    return checkpoints_;
  }

  // What the supervisor had while it told of the latest end.
  std::vector<LiveRank> ranks_at_end() {
    MutexLock lock(&mutex_);
    return ranks_at_end_;
  }

  lasp::v1::RankReady last_ready() {
    MutexLock lock(&mutex_);
    return ready_;
  }

  std::vector<lasp::v1::Assignment> started() {
    MutexLock lock(&mutex_);
    return started_;
  }

 private:
  template <typename Condition>
  void Wait(Condition condition) REQUIRES_LOCK(mutex_) {
    const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(30);
    while (!condition() && SystemClock().Monotonic() < deadline) {
      changed_.WaitWithTimeout(&mutex_, absl::Seconds(1));
    }
  }

  Supervisor* supervisor_ = nullptr;
  Mutex mutex_;
  CondVar changed_;
  std::vector<lasp::v1::Assignment> started_ GUARDED_BY(mutex_);
  lasp::v1::RankReady ready_ GUARDED_BY(mutex_);
  std::vector<lasp::v1::ShardWritten> shards_ GUARDED_BY(mutex_);
  int64_t checkpoints_ GUARDED_BY(mutex_) = 0;
  std::vector<lasp::v1::RankExited> ended_ GUARDED_BY(mutex_);
  std::vector<LiveRank> ranks_at_end_ GUARDED_BY(mutex_);
  int64_t last_step_ GUARDED_BY(mutex_) = 0;
};

class SupervisorFixture : public ::testing::Test {
 protected:
  SupervisorFixture() {
    std::filesystem::create_directories(folder_.Join("ranks"));
    Restart(Options());
  }

  void Restart(SupervisorOptions options) {
    supervisor_ = std::make_unique<Supervisor>(std::move(options), &ledger_, &logs_, &recorder_);
    recorder_.Attach(supervisor_.get());
  }

  std::string LogOf(const lasp::v1::Fence& fence) {
    EXPECT_TRUE(logs_.collector().WaitUntilIdle(absl::Seconds(10)));
    return (*logs_.Prepare(fence)).log->Read(0, 256 << 10)->data;
  }

  ::lasp::testing::TempDirectory folder_;
  RankLedger ledger_{folder_.Join("ranks")};
  RankLogs logs_{{.folder = folder_.Join("logs")}, &SystemClock()};
  Recorder recorder_;
  std::unique_ptr<Supervisor> supervisor_;
};

}  // namespace lasp::worker::testing
