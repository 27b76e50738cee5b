#include "server/console/http_message.h"

#include "absl/strings/match.h"

namespace lasp::server {

std::vector<absl::string_view> HttpRequest::Header(absl::string_view name) const {
  std::vector<absl::string_view> values;
  for (const auto& [key, value] : headers) {
    if (absl::EqualsIgnoreCase(key, name)) {
      values.emplace_back(value);
    }
  }
  return values;
}

}  // namespace lasp::server
