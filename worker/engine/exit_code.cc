#include "worker/engine/exit_code.h"

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/checkpoint_reader.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"

namespace lasp::worker {
namespace {

constexpr char kSuspectHost[] = "SUSPECT_HOST";

constexpr char kNonFiniteStep[] = "NON_FINITE_STEP";
constexpr char kOutlierStep[] = "OUTLIER_STEP";

}  // namespace

absl::Status BadStepError(const BadStep& bad) {
  return ErrorWithReason(
      bad.roll_back ? absl::StatusCode::kAborted : absl::StatusCode::kFailedPrecondition,
      absl::StrCat(bad.finite ? "the loss of step " : "the loss or the gradient of step ", bad.step,
                   bad.finite ? " is an outlier: " : " is not finite: ", "loss ", bad.loss,
                   ", gradient norm ", bad.gradient_norm),
      bad.finite ? kOutlierStep : kNonFiniteStep, {{"step", absl::StrCat(bad.step)}});
}

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
  if (ErrorReason(status) == kNonFiniteStep || ErrorReason(status) == kOutlierStep) {
    return absl::IsAborted(status) ? kRankRetry : kRankDoNotRequeue;
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
