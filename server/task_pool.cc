#include "server/task_pool.h"

#include <utility>

namespace lasp::server {

TaskPool::TaskPool(const Options& options) : options_(options) {
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

TaskPool::~TaskPool() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.NotifyAll();
    stop_.NotifyAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

bool TaskPool::Run(std::function<void()> task) {
  MutexLock lock(&mutex_);
  if (tasks_.size() >= options_.max_queued) {
    return false;
  }
  tasks_.push_back(std::move(task));
  wake_.Notify();
  return true;
}

void TaskPool::RunAlways(std::function<void()> task) {
  MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
  wake_.Notify();
}

size_t TaskPool::queued() const {
  MutexLock lock(&mutex_);
  return tasks_.size();
}

void TaskPool::Work() {
  mutex_.Lock();
  while (true) {
    while (tasks_.empty() && !stopping_) {
      wake_.Wait(&mutex_);
    }
    if (tasks_.empty()) {
      break;
    }
    if (options_.rest == absl::ZeroDuration()) {
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      mutex_.Unlock();
      task();
      task = nullptr;  // its captures go before the lock is taken again
      mutex_.Lock();
      continue;
    }
    std::deque<std::function<void()>> pass = std::move(tasks_);
    tasks_.clear();
    mutex_.Unlock();
    for (std::function<void()>& task : pass) {
      task();
      task = nullptr;
    }
    mutex_.Lock();
    if (!stopping_) {
      stop_.WaitWithTimeout(&mutex_, options_.rest);
    }
  }
  mutex_.Unlock();
}

}  // namespace lasp::server
