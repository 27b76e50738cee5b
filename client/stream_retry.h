// When a stream that has ended is worth another try.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/session.h"

namespace lasp::client {

// Waits longer from try to try, at most 5 s, and gives up when the coordinator has been away for
// five minutes. Used by one thread, within an InterruptScope.
class StreamRetry {
 public:
  StreamRetry(Session* session, Connection* connection)
      : session_(*session), connection_(*connection) {}

  // The stream has given something: all is well.
  void Heard();

  // After a stream's end with `status`: OK when it is time to try again, from where the last
  // message left off: the coordinator was away, or ended the stream because it was read too slowly;
  // CANCELLED after Ctrl-C; `status` itself where another try would not help.
  absl::Status BeforeNextTry(const absl::Status& status);

 private:
  Session& session_;
  Connection& connection_;
  absl::Duration backoff_ = kFirstBackoff;
  absl::Time lost_ = absl::InfiniteFuture();

  static constexpr absl::Duration kFirstBackoff = absl::Milliseconds(200);
};

}  // namespace lasp::client
