// What the reader of a filtered watch has.
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>

namespace lasp::server {

// Whether the reader has a job, where the filter's answer about it may change. One that resumes may
// have any job until it was told of it, or not; of one that begins only the jobs that it has are
// kept here. Not thread-safe.
class SelectedJobs {
 public:
  void Resume() { resumed_ = true; }

  // Whether the reader had the job until now, which it now has or not.
  bool Exchange(const std::string& name, bool selected) {
    const auto found = selected_.find(name);
    const bool had = found == selected_.end() ? resumed_ : found->second;
    if (selected || resumed_) {
      selected_[name] = selected;
    } else if (found != selected_.end()) {
      selected_.erase(found);
    }
    return had;
  }

  // The job is deleted.
  void Forget(const std::string& name) { selected_.erase(name); }

  size_t size() const { return selected_.size(); }

 private:
  std::unordered_map<std::string, bool> selected_;
  bool resumed_ = false;
};

}  // namespace lasp::server
