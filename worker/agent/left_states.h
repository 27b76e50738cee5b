// What ranks of this host have left in its memory for generations to come, and when it is removed.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

// Makes the folder, for its owner alone, where it is missing. FAILED_PRECONDITION where it is
// somebody else's, or others may write there; otherwise what the system says.
absl::Status PrepareMemoryRoot(const std::string& path);

// The memory-backed folder for an agent with this folder for its work: one a host and folder.
std::string DefaultMemoryRoot(const std::string& work_folder);

// Not thread-safe.
class LeftStates {
 public:
  // Nobody takes it up later than that: the next generation has begun long before, or the job has
  // gone elsewhere.
  static constexpr absl::Duration kKept = absl::Minutes(10);

  // Empties `root`, which may be empty: then nothing is ever left.
  explicit LeftStates(std::string root);
  // Removes the folder.
  ~LeftStates();
  LeftStates(const LeftStates&) = delete;
  LeftStates& operator=(const LeftStates&) = delete;

  // A rank leaves its state.
  void Expect(const lasp::v1::Fence& fence, absl::Duration now);
  // This generation has come on: what older ones of the job left is of no use any more.
  void RemoveOlder(const lasp::v1::Fence& fence);
  void Expire(absl::Duration now);

  // Of the monotonic clock.
  absl::Duration next_expiry() const;

 private:
  void Remove(const std::string& folder) const;

  const std::string root_;
  // By folder.
  std::map<std::string, absl::Duration> expiries_;
};

}  // namespace lasp::worker
