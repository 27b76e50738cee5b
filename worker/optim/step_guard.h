// Counts the steps whose update was left out, and says when they are too many. Whether an update is
// made is decided on the device (Backend::DecideUpdate).
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace lasp::worker {

// Not thread-safe. All ranks see the same decisions, so all agree.
class StepGuard {
 public:
  explicit StepGuard(int64_t max_skipped_steps) : max_skipped_steps_(max_skipped_steps) {}

  // What became of one more step.
  void Count(bool skipped);

  // FAILED_PRECONDITION once more than max_skipped_steps steps in a row have been skipped.
  absl::Status status() const;

  int64_t skipped_total() const { return skipped_total_; }

  int64_t updates() const { return updates_; }

 private:
  const int64_t max_skipped_steps_;
  int64_t skipped_in_a_row_ = 0;
  int64_t skipped_total_ = 0;
  int64_t updates_ = 0;
};

}  // namespace lasp::worker
