#include "server/task_pool.h"

#include <gtest/gtest.h>

#include <atomic>

namespace lasp::server {
namespace {

// Opens once.
class Gate {
 public:
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    opened_.NotifyAll();
  }

  void Pass() {
    MutexLock lock(&mutex_);
    while (!open_) {
      ASSERT_FALSE(opened_.WaitWithTimeout(&mutex_, absl::Seconds(10)));
    }
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ = false;
};

TEST(TaskPoolTest, RunsWhatIsQueuedBeforeItEnds) {
  for (const absl::Duration rest : {absl::ZeroDuration(), absl::Milliseconds(5)}) {
    std::atomic<int> ran = 0;
    {
      TaskPool pool({.threads = 2, .max_queued = 1'000, .rest = rest});
      for (int i = 0; i < 500; ++i) {
        ASSERT_TRUE(pool.Run([&ran] { ++ran; }));
      }
    }
    EXPECT_EQ(ran, 500);
  }
}

TEST(TaskPoolTest, RefusesWhatItCannotHold) {
  Gate gate;
  Gate started;
  std::atomic<int> ran = 0;
  {
    TaskPool pool({.threads = 1, .max_queued = 2, .rest = absl::ZeroDuration()});
    ASSERT_TRUE(pool.Run([&] {
      started.Open();
      gate.Pass();
    }));
    started.Pass();
    EXPECT_TRUE(pool.Run([&ran] { ++ran; }));
    EXPECT_TRUE(pool.Run([&ran] { ++ran; }));
    EXPECT_FALSE(pool.Run([&ran] { ran = 100; }));
    pool.RunAlways([&ran] { ++ran; });
    gate.Open();
  }
  EXPECT_EQ(ran, 3);
}

TEST(TaskPoolTest, ABusyPoolTakesManyTasksAPass) {
  // With one task a pass, 200 tasks would take 200 rests of 50 ms.
  const auto start = std::chrono::steady_clock::now();
  std::atomic<int> ran = 0;
  {
    TaskPool pool({.threads = 1, .max_queued = 1'000, .rest = absl::Milliseconds(50)});
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(pool.Run([&ran] { ++ran; }));
    }
  }
  EXPECT_EQ(ran, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace lasp::server
