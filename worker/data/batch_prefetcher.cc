#include "worker/data/batch_prefetcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"

namespace lasp::worker {

BatchPrefetcher::BatchPrefetcher(const BatchSource* source, int64_t first_step, int64_t last_step,
                                 int depth)
    : source_(source),
      first_step_(first_step),
      last_step_(last_step),
      depth_(static_cast<size_t>(std::max(depth, 1))),
      thread_(&BatchPrefetcher::Run, this) {}

BatchPrefetcher::~BatchPrefetcher() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

absl::StatusOr<Batch> BatchPrefetcher::Next(absl::Duration timeout) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (ready_.empty()) {
    if (!end_.ok()) {
      return end_;
    }
    const absl::Duration left = deadline - SystemClock().Monotonic();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat("no batch could be read within ", absl::FormatDuration(timeout),
                       ": check the disk or network file system that holds the corpus"));
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.NotifyAll();
  return batch;
}

void BatchPrefetcher::Run() {
  absl::Status end = absl::OutOfRangeError("the batches of the last step have been taken");
  bool going_on = true;
  for (int64_t step = first_step_; step <= last_step_ && going_on; ++step) {
    for (int64_t m = 0; m < source_->micro_batches_per_step() && going_on; ++m) {
      absl::StatusOr<Batch> batch = source_->Read(step, m);
      if (!batch.ok()) {
        end = batch.status();
        going_on = false;
      } else {
        going_on = Offer(*std::move(batch));
      }
    }
  }
  MutexLock lock(&mutex_);
  end_ = end;
  changed_.NotifyAll();
}

bool BatchPrefetcher::Offer(Batch batch) {
  MutexLock lock(&mutex_);
  while (ready_.size() >= depth_ && !stopping_) {
    changed_.Wait(&mutex_);
  }
  if (stopping_) {
    return false;
  }
  ready_.push_back(std::move(batch));
  changed_.NotifyAll();
  return true;
}

}  // namespace lasp::worker
