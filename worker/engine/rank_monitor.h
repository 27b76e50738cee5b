// Speaks for a rank beside its training: twice a second how it comes on, and, when it is asked
// because the job hangs, where it is.
#pragma once

#include <thread>

#include "proto/rpc/mutex.h"
#include "worker/engine/progress_clock.h"
#include "worker/engine/rank_channel.h"
#include "worker/engine/step_load.h"
#include "worker/parallel/collective_log.h"

namespace lasp::worker {

// Thread-safe.
class RankMonitor {
 public:
  static constexpr absl::Duration kPulse = absl::Milliseconds(500);

  // All must outlive this.
  RankMonitor(RankChannel* channel, const CollectiveJournal* journal, ProgressClock* progress,
              const StepLoad* load);
  ~RankMonitor();
  RankMonitor(const RankMonitor&) = delete;
  RankMonitor& operator=(const RankMonitor&) = delete;

  // Writes the last operations of every group, and the stacks of all threads, to the log, and tells
  // the agent that it has. One caller at a time.
  void Dump();

 private:
  void Run();
  void Pulse();

  RankChannel& channel_;
  const CollectiveJournal& journal_;
  ProgressClock& progress_;
  const StepLoad& load_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace lasp::worker
