#include "server/try_again.h"

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"

namespace lasp::server {

absl::Status TryAgainLater(absl::StatusCode code, absl::string_view message,
                           absl::string_view reason, absl::Duration delay) {
  absl::Status status = ErrorWithReason(code, message, reason);
  google::rpc::RetryInfo info;
  *info.mutable_retry_delay() = ToProtoDuration(delay);
  status.SetPayload("type.googleapis.com/google.rpc.RetryInfo",
                    absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status Overloaded() {
  return TryAgainLater(
      absl::StatusCode::kResourceExhausted,
      "the coordinator has more requests waiting than it holds: try again in a second",
      "OVERLOADED", absl::Seconds(1));
}

absl::Status ShuttingDown() {
  return TryAgainLater(absl::StatusCode::kUnavailable,
                       "the coordinator is shutting down: try again in a second", "SHUTTING_DOWN",
                       absl::Seconds(1));
}

}  // namespace lasp::server
