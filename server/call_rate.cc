#include "server/call_rate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/try_again.h"

namespace lasp::server {

double CallRate::Fill(const Bucket& bucket, absl::Duration now) const {
  const double seconds = absl::ToDoubleSeconds(now - bucket.filled_at);
  return std::min(Capacity(), bucket.tokens + seconds * per_second_);
}

absl::Status CallRate::Admit(absl::string_view principal) {
  const absl::Duration now = clock_->Monotonic();
  MutexLock lock(&mutex_);
  auto found = buckets_.find(principal);
  if (found == buckets_.end()) {
    if (buckets_.size() >= kMaxPrincipals) {
      // A full bucket is as good as none.
      std::erase_if(buckets_,
                    [&](const auto& entry) { return Fill(entry.second, now) >= Capacity(); });
    }
    if (buckets_.size() >= kMaxPrincipals) {
      buckets_.erase(buckets_.begin());
    }
    found = buckets_.emplace(std::string(principal), Bucket{.tokens = Capacity(), .filled_at = now})
                .first;
  }
  Bucket& bucket = found->second;
  bucket = {.tokens = Fill(bucket, now), .filled_at = now};
  if (bucket.tokens < 1) {
    return TryAgainLater(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(principal, " calls more often than ", per_second_,
                     " times a second, all that the coordinator's --max_calls_a_second allows: "
                     "call less often, or watch instead of asking"),
        "TOO_MANY_CALLS", absl::Seconds(1));
  }
  bucket.tokens -= 1;
  return absl::OkStatus();
}

size_t CallRate::size() const {
  MutexLock lock(&mutex_);
  return buckets_.size();
}

}  // namespace lasp::server
