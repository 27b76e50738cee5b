#include "worker/data/batch_prefetcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {

BatchPrefetcher::BatchPrefetcher(const BatchSource* source, int64_t first_step, int64_t last_step,
                                 const MacroChunks& chunks, int depth)
    : source_(source),
      first_step_(first_step),
      last_step_(last_step),
      chunks_(chunks),
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

absl::Status BatchPrefetcher::ReadMicroBatch(int64_t step, int64_t micro_batch, bool* going_on) {
  for (int64_t pass = 0; pass < chunks_.pass_count() && *going_on; ++pass) {
    LASP_ASSIGN_OR_RETURN(Batch batch,
                          source_->Read(step, micro_batch, chunks_, chunks_.ChunkOfPass(pass)));
    if (micro_batch == 0 && pass == 0) {
      LASP_ASSIGN_OR_RETURN(batch.step_label_count, source_->StepLabelCount(step, chunks_));
    }
    *going_on = Offer(std::move(batch));
  }
  return absl::OkStatus();
}

void BatchPrefetcher::Run() {
  absl::Status end;
  bool going_on = true;
  for (int64_t step = first_step_; step <= last_step_ && end.ok() && going_on; ++step) {
    for (int64_t m = 0; m < source_->micro_batches_per_step() && end.ok() && going_on; ++m) {
      end = ReadMicroBatch(step, m, &going_on);
    }
  }
  if (end.ok()) {
    end = absl::OutOfRangeError("the batches of the last step have been taken");
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
