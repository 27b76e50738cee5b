#include "worker/engine/exit_code.h"

#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"
#include "worker/checkpoint/checkpoint_reader.h"

namespace lasp::worker {
namespace {

constexpr char kSuspectHost[] = "SUSPECT_HOST";

}  // namespace

absl::Status SuspectHostError(const absl::Status& status) {
  return ErrorWithReason(status.code(), status.message(), kSuspectHost);
}

int ExitCodeOf(const absl::Status& status) {
  if (ErrorReason(status) == kSuspectHost) {
    return kRankSuspectHost;
  }
  if (ErrorReason(status) == kCheckpointCorrupt) {
    return kRankRetry;
  }
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kRankDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return kRankWrongConfiguration;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
      return kRankSuspectHost;
    default:
      return kRankRetry;
  }
}

}  // namespace lasp::worker
