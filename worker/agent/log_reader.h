// Reads on a thread of its own what of the ranks' logs goes to the coordinator next, so that a disk
// that hangs keeps neither a heartbeat nor a report back.
#pragma once

#include <functional>
#include <thread>

#include "proto/rpc/mutex.h"
#include "worker/agent/log_shipper.h"

namespace lasp::worker {

// Thread-safe.
class LogReader {
 public:
  // `shipper` outlives it. `has_read` is called on the thread, when there is a chunk to be taken.
  LogReader(LogShipper* shipper, std::function<void()> has_read);
  // Waits for the disk, if that is being read.
  ~LogReader();
  LogReader(const LogReader&) = delete;
  LogReader& operator=(const LogReader&) = delete;

  // Has the next chunk read, unless that is under way. Returns at once.
  void Ask();

 private:
  void Run();
  // False when it is to end.
  bool WaitUntilAsked();

  LogShipper* const shipper_;
  const std::function<void()> has_read_;
  Mutex mutex_;
  CondVar changed_;
  bool asked_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace lasp::worker
