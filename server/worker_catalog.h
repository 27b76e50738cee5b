// What readers see of the workers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/v1/worker.pb.h"
#include "proto/rpc/mutex.h"
#include "server/lease_table.h"

namespace lasp::server {

// A worker at one moment: immutable but for what its heartbeats say, which changes too often for a
// new view each time.
struct WorkerView {
  // Everything else.
  lasp::v1::Worker worker;
  // Null where it has not been heard of.
  std::shared_ptr<const Lease> lease;
  // Of one that has not: since when it is missed, the start of this process. InfiniteFuture for one
  // that is not missed.
  absl::Time missed_since = absl::InfiniteFuture();
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
