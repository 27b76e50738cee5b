// How many calls a principal makes in a second, at most.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// A bucket of tokens each: a call takes one, and `per_second` of them come back in a second, up to
// two seconds' worth. Thread-safe.
class CallRate {
 public:
  // Principals that are remembered: one that is forgotten begins with a full bucket.
  static constexpr size_t kMaxPrincipals = 65'536;

  CallRate(const Clock* clock, int per_second) : clock_(clock), per_second_(per_second) {}

  // RESOURCE_EXHAUSTED with reason TOO_MANY_CALLS, and when to come again, where `principal` has
  // called too often.
  absl::Status Admit(absl::string_view principal);

  // For tests.
  size_t size() const;

 private:
  struct Bucket {
    double tokens = 0;
    absl::Duration filled_at;
  };

  double Capacity() const { return 2.0 * per_second_; }

  // What the bucket holds now.
  double Fill(const Bucket& bucket, absl::Duration now) const;

  const Clock* const clock_;
  const int per_second_;
  mutable Mutex mutex_;
  std::map<std::string, Bucket, std::less<>> buckets_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
