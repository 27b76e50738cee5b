// A few threads for what the gRPC callbacks must not do themselves: reading files and the store.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// Thread-safe. The destructor runs what is queued, then joins.
class TaskPool {
 public:
  struct Options {
    int threads = 1;
    // Tasks that wait; beyond it Run refuses.
    size_t max_queued = 4'096;
    // After each pass a thread rests this long, so that what becomes ready meanwhile is handled
    // together. Zero for none; the first task after an idle time never waits.
    absl::Duration rest = absl::ZeroDuration();
  };

  explicit TaskPool(const Options& options);
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False, without running it, when too many tasks wait.
  [[nodiscard]] bool Run(std::function<void()> task);
  // For tasks whose number is bounded elsewhere (one a stream): never refuses.
  void RunAlways(std::function<void()> task);

  // Tasks that wait.
  size_t queued() const;

 private:
  void Work();

  const Options options_;
  mutable Mutex mutex_;
  CondVar wake_;
  // Notified by the destructor only.
  CondVar stop_;
  std::deque<std::function<void()>> tasks_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace lasp::server
