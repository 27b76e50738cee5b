#include "server/store_error.h"

#include <system_error>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

absl::Status StoreUnavailable(absl::string_view doing, const std::string& path,
                              absl::string_view cause) {
  return ErrorWithReason(
      absl::StatusCode::kUnavailable,
      absl::StrCat("the coordinator's store: cannot ", doing, " ", path, ": ", cause,
                   "; see to the room and the rights on its disk, then try again"),
      "STORE_UNAVAILABLE", {{"path", path}});
}

absl::Status StoreUnavailable(absl::string_view doing, const std::string& path, int error) {
  return StoreUnavailable(doing, path, std::generic_category().message(error));
}

absl::Status StoreDamaged(const std::string& path, absl::string_view cause) {
  return ErrorWithReason(
      absl::StatusCode::kDataLoss,
      absl::StrCat(path, ": the store is damaged (", cause, "); restore it from a backup"),
      "STORE_DAMAGED", {{"path", path}});
}

}  // namespace lasp::server
