// Removes the logs of jobs that are deleted, away from the thread that decides on it: a job may
// have thousands of files, and retention deletes many jobs at once.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "server/task_pool.h"

namespace lasp::server {

// Thread-safe.
class LogRemover {
 public:
  // `remove` takes a job's uid; called from the remover's thread.
  explicit LogRemover(std::function<void(const std::string&)> remove)
      : remove_(std::move(remove)) {}

  // Waits for the removal under way. Those it has not come to are found by the next start, as logs
  // of jobs that do not exist.
  ~LogRemover() { ending_ = true; }

  LogRemover(const LogRemover&) = delete;
  LogRemover& operator=(const LogRemover&) = delete;

  // Returns at once. As many wait as jobs are deleted.
  void Remove(std::string uid) {
    pool_.RunAlways([this, uid = std::move(uid)] {
      if (!ending_) {
        remove_(uid);
      }
    });
  }

 private:
  const std::function<void(const std::string&)> remove_;
  std::atomic<bool> ending_{false};
  TaskPool pool_{{.threads = 1}};
};

}  // namespace lasp::server
