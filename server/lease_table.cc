#include "server/lease_table.h"

#include "proto/rpc/proto_time.h"

namespace lasp::server {

void Lease::Renew(const Clock& clock) {
  renewed_nanos_.store(absl::ToInt64Nanoseconds(clock.Monotonic()), std::memory_order_relaxed);
  renewed_unix_micros_.store(absl::ToUnixMicros(clock.Now()), std::memory_order_relaxed);
}

absl::Duration Lease::renewed() const {
  return absl::Nanoseconds(renewed_nanos_.load(std::memory_order_relaxed));
}

void Lease::TakeReport(const lasp::v1::Heartbeat& heartbeat, absl::Time now) {
  if (!heartbeat.has_time()) {
    return;
  }
  clock_offset_nanos_.store(absl::ToInt64Nanoseconds(FromProtoTime(heartbeat.time()) - now),
                            std::memory_order_relaxed);
  work_disk_free_bytes_.store(heartbeat.work_disk_free_bytes(), std::memory_order_relaxed);
  work_disk_size_bytes_.store(heartbeat.work_disk_size_bytes(), std::memory_order_relaxed);
  reported_.store(true, std::memory_order_release);
}

bool Lease::AddReport(lasp::v1::HostReport* report) const {
  if (!reported_.load(std::memory_order_acquire)) {
    return false;
  }
  *report->mutable_clock_offset() =
      ToProtoDuration(absl::Nanoseconds(clock_offset_nanos_.load(std::memory_order_relaxed)));
  report->set_work_disk_free_bytes(work_disk_free_bytes_.load(std::memory_order_relaxed));
  report->set_work_disk_size_bytes(work_disk_size_bytes_.load(std::memory_order_relaxed));
  return true;
}

std::shared_ptr<Lease> LeaseTable::Grant(const std::string& worker_id) {
  MutexLock lock(&mutex_);
  std::shared_ptr<Lease>& lease = leases_[worker_id];
  if (lease == nullptr) {
    lease = std::make_shared<Lease>();
  }
  lease->Renew(*clock_);
  return lease;
}

bool LeaseTable::RevokeExpired(const std::string& worker_id) {
  const absl::Duration limit = clock_->Monotonic() - duration_;
  MutexLock lock(&mutex_);
  const auto found = leases_.find(worker_id);
  if (found == leases_.end() || found->second->renewed() >= limit) {
    return false;
  }
  leases_.erase(found);
  return true;
}

void LeaseTable::Revoke(const std::string& worker_id) {
  MutexLock lock(&mutex_);
  leases_.erase(worker_id);
}

std::vector<std::string> LeaseTable::Expired() const {
  const absl::Duration limit = clock_->Monotonic() - duration_;
  std::vector<std::string> expired;
  MutexLock lock(&mutex_);
  for (const auto& [worker_id, lease] : leases_) {
    if (lease->renewed() < limit) {
      expired.push_back(worker_id);
    }
  }
  return expired;
}

void LeaseTable::RenewAll() {
  MutexLock lock(&mutex_);
  for (const auto& [worker_id, lease] : leases_) {
    lease->Renew(*clock_);
  }
}

}  // namespace lasp::server
