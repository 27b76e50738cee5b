#include "server/job_catalog.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lasp::server {

JobViewPtr JobCatalog::Find(absl::string_view name) const {
  const std::string key(name);
  MutexLock lock(&mutex_);
  const auto found = by_name_.find(key);
  return found == by_name_.end() ? nullptr : found->second;
}

JobViewPtr JobCatalog::FindByUid(const std::string& uid) const {
  MutexLock lock(&mutex_);
  const auto found = by_uid_.find(uid);
  return found == by_uid_.end() ? nullptr : found->second;
}

size_t JobCatalog::size() const {
  MutexLock lock(&mutex_);
  return by_id_.size();
}

int64_t JobCatalog::revision() const {
  MutexLock lock(&mutex_);
  return revision_;
}

std::vector<JobViewPtr> JobCatalog::All() const {
  MutexLock lock(&mutex_);
  std::vector<JobViewPtr> views;
  views.reserve(by_id_.size());
  for (const auto& [id, view] : by_id_) {
    views.push_back(view);
  }
  return views;
}

std::vector<JobViewPtr> JobCatalog::CreatedBefore(int64_t before_id, int limit) const {
  MutexLock lock(&mutex_);
  std::vector<JobViewPtr> views;
  auto position = by_id_.lower_bound(before_id);
  while (position != by_id_.begin() && std::ssize(views) < limit) {
    --position;
    views.push_back(position->second);
  }
  return views;
}

std::vector<JobChange> JobCatalog::ChangesAfter(int64_t revision, int limit) const {
  MutexLock lock(&mutex_);
  std::vector<JobChange> changes;
  auto job = by_revision_.upper_bound(revision);
  auto deletion = tombstones_.upper_bound(revision);
  while (std::ssize(changes) < limit) {
    const bool have_job = job != by_revision_.end();
    const bool have_deletion = deletion != tombstones_.end();
    if (have_job && (!have_deletion || job->first < deletion->first)) {
      changes.push_back({.revision = job->first, .job = job->second, .deleted_name = {}});
      ++job;
    } else if (have_deletion) {
      changes.push_back(
          {.revision = deletion->first, .job = nullptr, .deleted_name = deletion->second});
      ++deletion;
    } else {
      break;
    }
  }
  return changes;
}

int64_t JobCatalog::compacted_revision() const {
  MutexLock lock(&mutex_);
  return compacted_revision_;
}

void JobCatalog::Restore(int64_t revision, int64_t compacted_revision) {
  MutexLock lock(&mutex_);
  revision_ = std::max(revision_, revision);
  compacted_revision_ = std::max(compacted_revision_, compacted_revision);
}

void JobCatalog::Publish(JobViewPtr view) {
  // Freed after the lock: it may be the last reference.
  JobViewPtr previous;
  MutexLock lock(&mutex_);
  JobViewPtr& by_uid = by_uid_[view->job.uid()];
  previous = by_uid;
  if (previous != nullptr) {
    by_revision_.erase(previous->revision);
  }
  by_uid = view;
  by_name_[view->job.name()] = view;
  by_id_[view->id] = view;
  revision_ = std::max(revision_, view->revision);
  const int64_t revision = view->revision;
  by_revision_.insert_or_assign(by_revision_.end(), revision, std::move(view));
}

void JobCatalog::Delete(const std::string& uid, int64_t revision) {
  JobViewPtr previous;
  MutexLock lock(&mutex_);
  const auto found = by_uid_.find(uid);
  if (found == by_uid_.end()) {
    return;
  }
  previous = found->second;
  by_uid_.erase(found);
  // The name may belong to a newer job already.
  const auto named = by_name_.find(previous->job.name());
  if (named != by_name_.end() && named->second->id == previous->id) {
    by_name_.erase(named);
  }
  by_id_.erase(previous->id);
  by_revision_.erase(previous->revision);
  tombstones_[revision] = previous->job.name();
  revision_ = std::max(revision_, revision);
}

void JobCatalog::RestoreTombstone(const std::string& name, int64_t revision) {
  MutexLock lock(&mutex_);
  tombstones_[revision] = name;
}

void JobCatalog::Compact(int64_t revision) {
  MutexLock lock(&mutex_);
  tombstones_.erase(tombstones_.begin(), tombstones_.upper_bound(revision));
  compacted_revision_ = std::max(compacted_revision_, revision);
}

size_t JobCatalog::tombstone_count() const {
  MutexLock lock(&mutex_);
  return tombstones_.size();
}

int64_t JobCatalog::CompactionPoint(size_t keep) const {
  MutexLock lock(&mutex_);
  if (tombstones_.size() <= keep) {
    return 0;
  }
  return std::next(tombstones_.begin(), static_cast<ptrdiff_t>(tombstones_.size() - keep) - 1)
      ->first;
}

}  // namespace lasp::server
