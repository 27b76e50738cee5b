// Removes the logs of jobs that are deleted, and what there is too much of, away from the thread
// that decides on it: a job may have thousands of files, and retention deletes many jobs at once.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "server/task_pool.h"

namespace lasp::server {

// Thread-safe.
class LogRemover {
 public:
  // `remove` takes a job's uid; `trim` removes what is too much. Called from the remover's thread.
  explicit LogRemover(
      std::function<void(const std::string&)> remove, std::function<void()> trim = [] {})
      : remove_(std::move(remove)), trim_(std::move(trim)) {}

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

  // Returns at once. Nothing where one is waiting already.
  void Trim() {
    if (trim_waits_.exchange(true)) {
      return;
    }
    pool_.RunAlways([this] {
      trim_waits_ = false;
      if (!ending_) {
        trim_();
      }
    });
  }

 private:
  const std::function<void(const std::string&)> remove_;
  const std::function<void()> trim_;
  std::atomic<bool> trim_waits_{false};
  std::atomic<bool> ending_{false};
  TaskPool pool_{{.threads = 1}};
};

}  // namespace lasp::server
