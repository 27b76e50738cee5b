// Who is alive: one lease a worker, renewed by any message of its agent.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// One worker's lease. Renewing it is two atomic stores, so that heartbeats need no lock and no
// queue.
class Lease {
 public:
  void Renew(const Clock& clock);
  absl::Duration renewed() const;

  // For people: the wall clock at the last renewal, in microseconds since 1970.
  int64_t renewed_unix_micros() const {
    return renewed_unix_micros_.load(std::memory_order_relaxed);
  }

  // What the agent's latest heartbeat says of its host; one that says nothing of it changes
  // nothing.
  void TakeReport(const lasp::v1::Heartbeat& heartbeat, absl::Time now);
  // Adds it to `report`; false where no heartbeat has said anything.
  bool AddReport(lasp::v1::HostReport* report) const;

 private:
  std::atomic<int64_t> renewed_nanos_{0};
  std::atomic<int64_t> renewed_unix_micros_{0};
  std::atomic<bool> reported_{false};
  std::atomic<int64_t> clock_offset_nanos_{0};
  std::atomic<int64_t> work_disk_free_bytes_{0};
  std::atomic<int64_t> work_disk_size_bytes_{0};
};

// Thread-safe.
class LeaseTable {
 public:
  LeaseTable(const Clock* clock, absl::Duration duration) : clock_(clock), duration_(duration) {}

  // The worker's lease, renewed; made where there is none.
  std::shared_ptr<Lease> Grant(const std::string& worker_id);
  // Ends the lease if it has run out; false where it was renewed meanwhile.
  bool RevokeExpired(const std::string& worker_id);
  void Revoke(const std::string& worker_id);
  // The workers whose leases have run out; they stay until revoked.
  std::vector<std::string> Expired() const;
  // Renews all, after a time in which the coordinator itself could not listen.
  void RenewAll();

 private:
  const Clock* const clock_;
  const absl::Duration duration_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Lease>> leases_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
