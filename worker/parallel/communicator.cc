#include "worker/parallel/communicator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"

namespace lasp::worker {

void HostCompletion::Set(absl::Status status) {
  MutexLock lock(&mutex_);
  done_ = true;
  status_ = std::move(status);
  changed_.NotifyAll();
}

absl::Status HostCompletion::Wait(absl::Duration timeout) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (!done_) {
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "a collective operation has not ended within ", absl::FormatDuration(timeout)));
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  return status_;
}

}  // namespace lasp::worker
