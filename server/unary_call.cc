#include "server/unary_call.h"

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

absl::Status Overloaded() {
  absl::Status status = ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                        "the coordinator has more requests waiting than it holds: "
                                        "try again in a second",
                                        "OVERLOADED");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  status.SetPayload("type.googleapis.com/google.rpc.RetryInfo",
                    absl::Cord(retry.SerializeAsString()));
  return status;
}

}  // namespace lasp::server
