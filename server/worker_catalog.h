// What readers see of the workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "lasp/v1/worker.pb.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// A worker at one moment: immutable but for the time of its last heartbeat, which changes too often
// for a new view each time.
struct WorkerView {
  // Everything except last_heartbeat_time.
  lasp::v1::Worker worker;
  std::shared_ptr<const std::atomic<int64_t>> last_heartbeat_unix_micros;
  // Whether it is lost after it was drained: it went as it should.
  bool left = false;

  lasp::v1::Worker ToProto() const;
};

using WorkerViewPtr = std::shared_ptr<const WorkerView>;

// Written by the controller only. Thread-safe.
class WorkerCatalog {
 public:
  // Null where there is none. `worker_id` without `workers/`.
  WorkerViewPtr Find(const std::string& worker_id) const;
  // By id, at most `limit` after `after_id` (empty for the first).
  std::vector<WorkerViewPtr> After(const std::string& after_id, int limit) const;
  std::vector<WorkerViewPtr> All() const;

  // --- the controller's side ---
  // A null view forgets the worker.
  void Publish(const std::string& worker_id, WorkerViewPtr view);

 private:
  mutable Mutex mutex_;
  std::map<std::string, WorkerViewPtr> workers_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
