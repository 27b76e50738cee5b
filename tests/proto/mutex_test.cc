#include "proto/rpc/mutex.h"

#include <gtest/gtest.h>

#include <thread>

#include "proto/rpc/clock.h"

namespace lasp {
namespace {

TEST(CondVarTest, AWaitEndsWhenItsTimeRunsOut) {
  Mutex mutex;
  CondVar changed;
  MutexLock lock(&mutex);
  const absl::Duration start = SystemClock().Monotonic();
  while (!changed.WaitWithTimeout(&mutex, absl::Milliseconds(20))) {
  }
  EXPECT_GE(SystemClock().Monotonic() - start, absl::Milliseconds(20));
}

TEST(CondVarTest, AnEndlessTimeoutDoesNotOverflow) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread notifier([&] {
    MutexLock lock(&mutex);
    ready = true;
    changed.NotifyAll();
  });
  {
    MutexLock lock(&mutex);
    while (!ready) {
      EXPECT_FALSE(changed.WaitWithTimeout(&mutex, absl::InfiniteDuration()));
    }
  }
  notifier.join();
}

TEST(CondVarTest, AWaitLetsOthersIn) {
  Mutex mutex;
  CondVar changed;
  int turn = 0;
  std::thread other([&] {
    MutexLock lock(&mutex);
    for (int i = 0; i < 1000; ++i) {
      while (turn % 2 == 0) {
        changed.Wait(&mutex);
      }
      ++turn;
      changed.NotifyAll();
    }
  });
  {
    MutexLock lock(&mutex);
    for (int i = 0; i < 1000; ++i) {
      ++turn;
      changed.NotifyAll();
      while (turn % 2 == 1) {
        changed.Wait(&mutex);
      }
    }
  }
  other.join();
  EXPECT_EQ(turn, 2000);
}

TEST(CondVarTest, TimeoutsInThePastReturnAtOnce) {
  Mutex mutex;
  CondVar changed;
  MutexLock lock(&mutex);
  EXPECT_TRUE(changed.WaitWithTimeout(&mutex, absl::Seconds(-1)));
}

}  // namespace
}  // namespace lasp
