#include "server/worker_catalog.h"

#include <iterator>
#include <utility>

#include "proto/rpc/proto_time.h"

namespace lasp::server {

lasp::v1::Worker WorkerView::ToProto() const {
  lasp::v1::Worker proto = worker;
  if (lease == nullptr) {
    return proto;
  }
  if (const int64_t micros = lease->renewed_unix_micros(); micros > 0) {
    *proto.mutable_last_heartbeat_time() = ToProtoTime(absl::FromUnixMicros(micros));
  }
  if (lasp::v1::HostReport report = proto.host_report(); lease->AddReport(&report)) {
    proto.mutable_host_report()->Swap(&report);
  }
  return proto;
}

WorkerViewPtr WorkerCatalog::Find(const std::string& worker_id) const {
  MutexLock lock(&mutex_);
  const auto found = workers_.find(worker_id);
  return found == workers_.end() ? nullptr : found->second;
}

std::vector<WorkerViewPtr> WorkerCatalog::After(const std::string& after_id, int limit) const {
  MutexLock lock(&mutex_);
  std::vector<WorkerViewPtr> views;
  for (auto position = workers_.upper_bound(after_id);
       position != workers_.end() && std::ssize(views) < limit; ++position) {
    views.push_back(position->second);
  }
  return views;
}

std::vector<WorkerViewPtr> WorkerCatalog::All() const {
  MutexLock lock(&mutex_);
  std::vector<WorkerViewPtr> views;
  views.reserve(workers_.size());
  for (const auto& [id, view] : workers_) {
    views.push_back(view);
  }
  return views;
}

void WorkerCatalog::Publish(const std::string& worker_id, WorkerViewPtr view) {
  MutexLock lock(&mutex_);
  if (view == nullptr) {
    workers_.erase(worker_id);
  } else {
    workers_[worker_id].swap(view);
  }
}

}  // namespace lasp::server
