// What readers see of the jobs: the committed state, by name, by age and by revision.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/rpc/mutex.h"
#include "server/job_view.h"

namespace lasp::server {

// One change of one resource: a job's newest view, or the name of a job that is gone.
struct JobChange {
  int64_t revision = 0;
  JobViewPtr job;
  std::string deleted_name;
};

// Written by the controller only, after the store has committed. Thread-safe; every call holds the
// lock for a time bounded by its limit, not by the number of jobs (All excepted: one pointer a
// job).
class JobCatalog {
 public:
  // Null where there is none.
  JobViewPtr Find(absl::string_view name) const;
  JobViewPtr FindByUid(const std::string& uid) const;

  size_t size() const;
  // The newest revision; a list made after this call holds everything up to it.
  int64_t revision() const;

  // All jobs, oldest first.
  std::vector<JobViewPtr> All() const;
  // At most `limit` jobs created before the one with `before_id`, newest first; start with
  // INT64_MAX. Ends when it gives fewer than `limit`.
  std::vector<JobViewPtr> CreatedBefore(int64_t before_id, int limit) const;

  // At most `limit` changes after `revision`, oldest first, each resource once.
  std::vector<JobChange> ChangesAfter(int64_t revision, int limit) const;
  // Deletions up to this revision have been forgotten: a reader at an older one must list anew.
  int64_t compacted_revision() const;

  // --- the controller's side ---
  // Raises the revision without a change, at start.
  void Restore(int64_t revision, int64_t compacted_revision);
  void Publish(JobViewPtr view);
  // `revision` is that of the deletion.
  void Delete(const std::string& uid, int64_t revision);
  // A deletion from an earlier run, at start.
  void RestoreTombstone(const std::string& name, int64_t revision);
  // Forgets deletions up to `revision`.
  void Compact(int64_t revision);
  size_t tombstone_count() const;
  // The revision up to which to compact so that `keep` deletions stay; 0 where none must go.
  int64_t CompactionPoint(size_t keep) const;

 private:
  mutable Mutex mutex_;
  int64_t revision_ GUARDED_BY(mutex_) = 0;
  int64_t compacted_revision_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, JobViewPtr> by_uid_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, JobViewPtr> by_name_ GUARDED_BY(mutex_);
  std::map<int64_t, JobViewPtr> by_id_ GUARDED_BY(mutex_);
  std::map<int64_t, JobViewPtr> by_revision_ GUARDED_BY(mutex_);
  std::map<int64_t, std::string> tombstones_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
