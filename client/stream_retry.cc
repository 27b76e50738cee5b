#include "client/stream_retry.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "client/interrupt.h"

namespace lasp::client {
namespace {

constexpr absl::Duration kGiveUp = absl::Minutes(5);
constexpr absl::Duration kMaxBackoff = absl::Seconds(5);

absl::Status Cancelled() { return absl::CancelledError("interrupted"); }

}  // namespace

void StreamRetry::Heard() {
  backoff_ = kFirstBackoff;
  lost_ = absl::InfiniteFuture();
}

absl::Status StreamRetry::BeforeNextTry(const absl::Status& status) {
  if (Interrupted()) {
    return Cancelled();
  }
  if (!status.ok() && !absl::IsUnavailable(status)) {
    return status;
  }
  if (lost_ == absl::InfiniteFuture()) {
    lost_ = absl::Now();
    session_.console().Note(
        "the connection to the coordinator is lost; training does not need it; trying again");
  }
  if (absl::Now() - lost_ > kGiveUp) {
    return status.ok() ? absl::UnavailableError("the coordinator ends every stream") : status;
  }
  if (WaitForInterrupt(backoff_)) {
    return Cancelled();
  }
  connection_.WaitUntilReachable(backoff_);
  backoff_ = std::min(backoff_ * 2, kMaxBackoff);
  return absl::OkStatus();
}

}  // namespace lasp::client
