// What readers see of the checkpoints: the committed state, by job.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "lasp/v1/checkpoint.pb.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// Newest first; immutable, shared by everybody who reads it.
using CheckpointList = std::shared_ptr<const std::vector<lasp::v1::Checkpoint>>;

// Written by the controller only, after the store has committed. Thread-safe.
class CheckpointCatalog {
 public:
  // Of the job with this uid; never null.
  CheckpointList Find(const std::string& uid) const {
    MutexLock lock(&mutex_);
    const auto found = by_uid_.find(uid);
    return found == by_uid_.end() ? std::make_shared<const std::vector<lasp::v1::Checkpoint>>()
                                  : found->second;
  }

  // An empty list: there are none any more.
  void Publish(const std::string& uid, CheckpointList list) {
    MutexLock lock(&mutex_);
    if (list->empty()) {
      by_uid_.erase(uid);
    } else {
      by_uid_[uid] = std::move(list);
    }
  }

 private:
  mutable Mutex mutex_;
  std::unordered_map<std::string, CheckpointList> by_uid_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
