// One HTTP request and its answer, without the library that carries them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace lasp::server {

using NamedValues = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  // Without the query; percent-escapes are decoded.
  std::string path;
  // Of the query, decoded, in order.
  NamedValues parameters;
  // In order; names as they were sent.
  NamedValues headers;

  // The values of the header `name`, whatever its case.
  std::vector<absl::string_view> Header(absl::string_view name) const;
};

struct HttpResponse {
  int code = 200;
  // Empty where there is no body.
  std::string content_type = {};
  std::string body = {};
  NamedValues headers = {};
};

}  // namespace lasp::server
