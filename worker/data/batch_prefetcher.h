// Reads a training run's batches ahead on a thread, so that a step does not wait for the disk.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/data/batch_source.h"

namespace lasp::worker {

// Next may be called by one thread at a time.
class BatchPrefetcher {
 public:
  // Batches of steps [first_step, last_step] in order, micro-batch by micro-batch, of each the
  // macro-chunks in the order of training's passes, at most `depth` of them held ready. `source`
  // must outlive this.
  BatchPrefetcher(const BatchSource* source, int64_t first_step, int64_t last_step,
                  const MacroChunks& chunks, int depth = 2);
  // Waits for the read in progress.
  ~BatchPrefetcher();
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;

  // The next batch; waits for it for at most `timeout` (DEADLINE_EXCEEDED: the disk or the network
  // file system hangs). After an error of the source every call gives that error; after the last
  // batch, OUT_OF_RANGE.
  absl::StatusOr<Batch> Next(absl::Duration timeout = absl::Minutes(5));

 private:
  void Run();
  // All of a micro-batch. Why no more should be read, otherwise OK; `going_on` turns false when
  // this is being destroyed.
  absl::Status ReadMicroBatch(int64_t step, int64_t micro_batch, bool* going_on);
  // Waits for room. False when this is being destroyed.
  bool Offer(Batch batch);

  const BatchSource* const source_;
  const int64_t first_step_;
  const int64_t last_step_;
  const MacroChunks chunks_;
  const size_t depth_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Batch> ready_ GUARDED_BY(mutex_);
  // Why the thread ended; OK while it runs.
  absl::Status end_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace lasp::worker
