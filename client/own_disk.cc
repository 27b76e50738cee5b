#include "client/own_disk.h"

#include "absl/strings/str_cat.h"

namespace lasp::client {

absl::Status OwnDiskError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kInvalidArgument:
      return status;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
      return absl::InvalidArgumentError(
          absl::StrCat(status.message(), "; name a folder of this machine that may be written to"));
    default:
      return absl::DataLossError(
          absl::StrCat(status.message(), "; make room on this machine, or name another folder"));
  }
}

}  // namespace lasp::client
