#include "worker/engine/progress_clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "tests/server/core/fake_clock.h"
#include "worker/engine/loss_watch.h"
#include "worker/engine/step_load.h"
#include "worker/engine/thread_stacks.h"

namespace lasp::worker {
namespace {

class ProgressClockTest : public ::testing::Test {
 protected:
  testing::FakeClock time_;
  CollectiveJournal journal_{&time_};
};

TEST_F(ProgressClockTest, TheLimitIsThreeTimesTheSlowestStepsAndTwentySecondsAtLeast) {
  ProgressClock clock(&journal_, /*exchanges=*/true, &time_);
  EXPECT_EQ(clock.Read().limit, absl::InfiniteDuration());
  clock.Enter(ProgressClock::Section::kTraining);
  EXPECT_EQ(clock.Read().limit, ProgressClock::kUncalibrated);
  for (int step = 0; step < 3; ++step) {
    clock.FinishStep(1);
  }
  EXPECT_EQ(clock.Read().limit, absl::Seconds(20));
  // One step in two hundred is beyond the 99th percentile, three are not.
  for (int step = 0; step < 200; ++step) {
    clock.FinishStep(step == 100 ? 60 : 10);
  }
  EXPECT_EQ(clock.Read().limit, absl::Seconds(30));
  for (int step = 0; step < 3; ++step) {
    clock.FinishStep(60);
  }
  EXPECT_EQ(clock.Read().limit, absl::Seconds(180));
  clock.Enter(ProgressClock::Section::kRestoring);
  EXPECT_EQ(clock.Read().limit, ProgressClock::kRestoreBlock);
  clock.Enter(ProgressClock::Section::kUntimed);
  EXPECT_EQ(clock.Read().limit, absl::InfiniteDuration());
}

TEST_F(ProgressClockTest, WithoutExchangesTheFirstStepsAreNotTimed) {
  ProgressClock clock(&journal_, /*exchanges=*/false, &time_);
  clock.Enter(ProgressClock::Section::kTraining);
  EXPECT_EQ(clock.Read().limit, absl::InfiniteDuration());
}

TEST_F(ProgressClockTest, StepsAndCollectiveOperationsAreProgress) {
  CollectiveLog* const log = journal_.Add("world", {0, 1});
  ProgressClock clock(&journal_, true, &time_);
  clock.Enter(ProgressClock::Section::kTraining);
  time_.Advance(absl::Seconds(5));
  EXPECT_EQ(clock.Read().idle, absl::Seconds(5));
  clock.FinishStep(5);
  EXPECT_EQ(clock.Read().idle, absl::ZeroDuration());
  time_.Advance(absl::Seconds(4));
  const uint32_t number = log->Issue(kAllReduce, kAllPeers, 8);
  log->Begin(number);
  EXPECT_EQ(clock.Read().idle, absl::Seconds(4));
  log->End(number);
  EXPECT_EQ(clock.Read().idle, absl::ZeroDuration());
}

TEST(LossWatchTest, AnOutlierLiesFarAboveTheLastLosses) {
  LossWatch watch(6, {});
  for (int step = 0; step < 31; ++step) {
    watch.Add(step % 2 == 0 ? 4.0 : 2.0);
  }
  EXPECT_TRUE(std::isinf(watch.limit()));
  watch.Add(2.0);
  EXPECT_NEAR(watch.limit(), 3 + 6 * 1, 1e-9);
  // As if it had never stopped.
  EXPECT_EQ(LossWatch(6, watch.losses()).limit(), watch.limit());
  EXPECT_TRUE(std::isinf(LossWatch(0, watch.losses()).limit()));
  for (int step = 0; step < 128; ++step) {
    watch.Add(1.0);
  }
  EXPECT_EQ(watch.losses().size(), 128u);
  EXPECT_NEAR(watch.limit(), 1 + 6e-3, 1e-9);
}

TEST(StepLoadTest, IsTheMeanOfTheLastFifty) {
  StepLoad load;
  for (int step = 0; step < 49; ++step) {
    load.Add(7);
  }
  EXPECT_EQ(load.mean(), 0);
  for (int step = 0; step < 50; ++step) {
    load.Add(step % 2 == 0 ? 1 : 3);
  }
  EXPECT_DOUBLE_EQ(load.mean(), 2);
}

// Not inlined, so that it is to be seen.
__attribute__((noinline)) void WaitInANamedFunction(Mutex* mutex, CondVar* changed, bool* over) {
  MutexLock lock(mutex);
  while (!*over) {
    changed->WaitWithTimeout(mutex, absl::Seconds(30));
  }
}

TEST(ThreadStacksTest, SayWhereEachThreadIs) {
  PrepareThreadStacks();
  Mutex mutex;
  CondVar changed;
  bool over = false;
  std::thread waiting([&] { WaitInANamedFunction(&mutex, &changed, &over); });
  bool seen = false;
  // Until it has come that far.
  for (int look = 0; look < 1000 && !seen; ++look) {
    for (const ThreadStack& stack : ThreadStacks(absl::Seconds(5))) {
      seen = seen || absl::StrContains(absl::StrJoin(stack.frames, " "), "WaitInANamedFunction");
    }
  }
  EXPECT_TRUE(seen);
  {
    MutexLock lock(&mutex);
    over = true;
    changed.NotifyAll();
  }
  waiting.join();
}

}  // namespace
}  // namespace lasp::worker
