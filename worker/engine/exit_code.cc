#include "worker/engine/exit_code.h"

#include "proto/rpc/rank_exit_code.h"

namespace lasp::worker {

int ExitCodeOf(const absl::Status& status) {
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
      return kRankSuspectHost;
    default:
      return kRankRetry;
  }
}

}  // namespace lasp::worker
