// How long a rank has not come on, and how long that may be, calibrated from its own steps.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "worker/parallel/collective_log.h"

namespace lasp::worker {

// Liveness is not progress: a rank whose threads answer may wait for ever in a collective
// operation. A rank comes on when it finishes a step, a batch of an evaluation or a collective
// operation. Thread-safe; the training thread tells, a watching thread reads.
class ProgressClock {
 public:
  enum class Section {
    // Start-up, whose peers wait for one another so long and no longer; the last checkpoint, which
    // looks after itself.
    kUntimed,
    // Blocks are read, and exchanged, all the time.
    kRestoring,
    kTraining,
    kEvaluating,
  };

  struct Reading {
    // Since it last came on.
    absl::Duration idle;
    // What of it is normal; infinite where nothing can be said.
    absl::Duration limit = absl::InfiniteDuration();
  };

  // The limit: so long, or so many times the 99th percentile of the last kWindow steps, whichever
  // is longer.
  static constexpr absl::Duration kFloor = absl::Seconds(20);
  static constexpr int kTimesStep = 3;
  static constexpr size_t kWindow = 200;
  // Steps that are needed to know how long they take. Until then an SP group's exchanges, one a
  // layer, are waited for so long; ranks without any are not timed.
  static constexpr size_t kFirstSteps = 3;
  static constexpr absl::Duration kUncalibrated = absl::Minutes(2);
  static constexpr absl::Duration kRestoreBlock = absl::Seconds(21);

  // `journal` and `clock` must outlive this. `exchanges`: whether the rank takes part in exchanges
  // throughout a step.
  ProgressClock(const CollectiveJournal* journal, bool exchanges,
                const Clock* clock = &SystemClock());

  void Enter(Section section);
  // A step has been finished, after so long.
  void FinishStep(double seconds);
  // A part of another section has been.
  void Advance();

  Reading Read();

 private:
  absl::Duration Limit() const REQUIRES_LOCK(mutex_);

  const CollectiveJournal& journal_;
  const bool exchanges_;
  const Clock& clock_;
  Mutex mutex_;
  Section section_ GUARDED_BY(mutex_) = Section::kUntimed;
  absl::Duration last_ GUARDED_BY(mutex_);
  // Ended collective operations, at the last look.
  uint64_t ended_ GUARDED_BY(mutex_) = 0;
  // The last steps' seconds; a ring.
  std::vector<double> steps_ GUARDED_BY(mutex_);
  size_t next_ GUARDED_BY(mutex_) = 0;
};

}  // namespace lasp::worker
