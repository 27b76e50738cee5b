#include "client/stream_retry.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "client/interrupt.h"
#include "proto/rpc/error_details.h"

namespace lasp::client {
namespace {

constexpr absl::Duration kGiveUp = absl::Minutes(5);
constexpr absl::Duration kMaxBackoff = absl::Seconds(5);
// How long Ctrl-C may wait for a connection.
constexpr absl::Duration kPiece = absl::Milliseconds(100);

absl::Status Cancelled() { return absl::CancelledError("interrupted"); }

// Whoever read too slowly, a disk or a pager, goes on where it was.
bool WasTooSlow(const absl::Status& status) { return ErrorReason(status) == "SLOW_READER"; }

}  // namespace

void StreamRetry::Heard() {
  backoff_ = kFirstBackoff;
  lost_ = absl::InfiniteFuture();
}

absl::Status StreamRetry::BeforeNextTry(const absl::Status& status) {
  if (Interrupted()) {
    return Cancelled();
  }
  const bool too_slow = WasTooSlow(status);
  if (!status.ok() && !absl::IsUnavailable(status) && !too_slow) {
    return status;
  }
  if (lost_ == absl::InfiniteFuture()) {
    lost_ = absl::Now();
    if (too_slow) {
      session_.console().Verbose("the coordinator ended a stream that was read slowly; going on");
    } else {
      session_.console().Note(
          "the connection to the coordinator is lost; training does not need it; trying again");
    }
  }
  if (absl::Now() - lost_ > kGiveUp) {
    return status.ok() ? absl::UnavailableError("the coordinator ends every stream") : status;
  }
  if (WaitForInterrupt(backoff_)) {
    return Cancelled();
  }
  const absl::Time deadline = absl::Now() + backoff_;
  while (!Interrupted() && absl::Now() < deadline && !connection_.WaitUntilReachable(kPiece)) {
  }
  backoff_ = std::min(backoff_ * 2, kMaxBackoff);
  return Interrupted() ? Cancelled() : absl::OkStatus();
}

}  // namespace lasp::client
