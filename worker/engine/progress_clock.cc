#include "worker/engine/progress_clock.h"

#include <algorithm>

namespace lasp::worker {

ProgressClock::ProgressClock(const CollectiveJournal* journal, bool exchanges, const Clock* clock)
    : journal_(*journal), exchanges_(exchanges), clock_(*clock), last_(clock->Monotonic()) {}

void ProgressClock::Enter(Section section) {
  MutexLock lock(&mutex_);
  section_ = section;
  last_ = clock_.Monotonic();
}

void ProgressClock::FinishStep(double seconds) {
  MutexLock lock(&mutex_);
  last_ = clock_.Monotonic();
  if (steps_.size() < kWindow) {
    steps_.push_back(seconds);
    return;
  }
  steps_[next_] = seconds;
  next_ = (next_ + 1) % kWindow;
}

void ProgressClock::Advance() {
  MutexLock lock(&mutex_);
  last_ = clock_.Monotonic();
}

absl::Duration ProgressClock::Limit() const {
  if (section_ == Section::kUntimed) {
    return absl::InfiniteDuration();
  }
  if (section_ == Section::kRestoring) {
    return kRestoreBlock;
  }
  if (steps_.size() < kFirstSteps) {
    return exchanges_ ? kUncalibrated : absl::InfiniteDuration();
  }
  std::vector<double> sorted = steps_;
  const size_t place = (sorted.size() * 99 + 99) / 100 - 1;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(place), sorted.end());
  return std::max(kFloor, kTimesStep * absl::Seconds(sorted[place]));
}

ProgressClock::Reading ProgressClock::Read() {
  uint64_t ended = 0;
  for (const CollectiveLog* const log : journal_.logs()) {
    ended += log->position().ended;
  }
  const absl::Duration now = clock_.Monotonic();
  MutexLock lock(&mutex_);
  if (ended != ended_) {
    ended_ = ended;
    last_ = now;
  }
  return {.idle = now - last_, .limit = Limit()};
}

}  // namespace lasp::worker
