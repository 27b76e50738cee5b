#include "server/worker_catalog.h"

#include <iterator>
#include <utility>

#include "server/proto_time.h"

namespace lasp::server {

lasp::v1::Worker WorkerView::ToProto() const {
  lasp::v1::Worker proto = worker;
  if (last_heartbeat_unix_micros != nullptr) {
    const int64_t micros = last_heartbeat_unix_micros->load(std::memory_order_relaxed);
    if (micros > 0) {
      *proto.mutable_last_heartbeat_time() = ToProtoTime(absl::FromUnixMicros(micros));
    }
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
