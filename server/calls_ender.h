// The end of calls that wait for something that does not come, such as a disk that is full.
#pragma once

#include <thread>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "server/job_controller.h"

namespace lasp::server {

// Stops the controller, which answers every call that waits for it, after `patience` unless it is
// destroyed first.
class CallsEnder {
 public:
  CallsEnder(JobController* controller, absl::Duration patience)
      : thread_([this, controller, patience] {
          const absl::Duration deadline = SystemClock().Monotonic() + patience;
          {
            MutexLock lock(&mutex_);
            while (!cancelled_ && SystemClock().Monotonic() < deadline) {
              changed_.WaitWithTimeout(&mutex_, deadline - SystemClock().Monotonic());
            }
            if (cancelled_) {
              return;
            }
          }
          controller->Stop();
        }) {}

  ~CallsEnder() {
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
      changed_.Notify();
    }
    thread_.join();
  }

  CallsEnder(const CallsEnder&) = delete;
  CallsEnder& operator=(const CallsEnder&) = delete;

 private:
  Mutex mutex_;
  CondVar changed_;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace lasp::server
