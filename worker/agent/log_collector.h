// Reads what the ranks of this agent write and puts it on disk, on a thread of its own: neither a
// flood of lines nor a slow disk delays the supervisor or a heartbeat. A rank that writes faster
// than the disk waits on its pipe.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "proto/spec/unique_fd.h"
#include "worker/agent/log_lines.h"
#include "worker/agent/rank_log.h"

namespace lasp::worker {

// Thread-safe.
class LogCollector {
 public:
  LogCollector();
  // Stops reading, whatever pipes are still open.
  ~LogCollector();

  // Reads `pipe` (non-blocking) into `log` until its writers are gone, then closes the log.
  void Add(UniqueFd pipe, std::shared_ptr<RankLog> log);

  // Waits until every pipe has ended; false when the time ran out first.
  bool WaitUntilIdle(absl::Duration timeout);

 private:
  struct Source {
    UniqueFd pipe;
    std::shared_ptr<RankLog> log;
    LogLines lines;
    // Bytes the disk did not take since it last took some.
    size_t lost_bytes = 0;
  };

  void Run();
  // False at the end of the pipe.
  bool ReadSome(Source* source, std::vector<char>* buffer);
  void Store(Source* source, std::string lines);
  void Close(int descriptor);

  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar changed_;
  // The key is the pipe's descriptor. The thread alone reads from a source and removes it.
  std::map<int, std::unique_ptr<Source>> sources_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
