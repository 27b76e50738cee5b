// Where the logs of ranks lie: one folder a rank and generation, which says whose log it holds and
// whether the coordinator has all of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/mutex.h"
#include "worker/agent/rank_log.h"

namespace lasp::worker {

struct FencedLog {
  lasp::v1::Fence fence;
  std::shared_ptr<RankLog> log;
};

// Thread-safe.
class LogFolder {
 public:
  LogFolder(std::string path, const RankLogLimits& limits)
      : path_(std::move(path)), limits_(limits) {}

  // The log of a rank that is about to start.
  absl::StatusOr<std::shared_ptr<RankLog>> Create(const lasp::v1::Fence& fence);

  // The logs that an earlier agent has not shipped to the end; closed.
  std::vector<FencedLog> Unshipped() const;
  static void MarkShipped(const RankLog& log);

  // Removes the logs that nobody has written to for `age`, and of the others the oldest until at
  // most `max_bytes` are left, those first that the coordinator has; never those of ranks that run,
  // which do not count.
  void RemoveOld(absl::Duration age, int64_t max_bytes);

 private:
  bool IsOpen(const std::string& folder) REQUIRES_LOCK(mutex_);

  const std::string path_;
  const RankLogLimits limits_;
  Mutex mutex_;
  // Made by Create and perhaps not closed yet.
  std::vector<std::weak_ptr<RankLog>> created_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
