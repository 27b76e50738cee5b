#include "server/request_id.h"

#include "absl/strings/ascii.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

absl::Status CheckRequestId(absl::string_view request_id) {
  if (request_id.empty()) {
    return absl::OkStatus();
  }
  bool valid = request_id.size() == 36;
  for (size_t i = 0; valid && i < request_id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    valid = dash ? request_id[i] == '-'
                 : absl::ascii_isxdigit(static_cast<unsigned char>(request_id[i]));
  }
  if (!valid) {
    return InvalidFields({{"request_id",
                           "is not a UUID such as 123e4567-e89b-42d3-a456-426614174000: make a new "
                           "one for each request and keep it over retries"}},
                         "INVALID_REQUEST");
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
