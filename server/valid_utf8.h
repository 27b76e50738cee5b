// Text that protobuf accepts: a rank may print any bytes, a proto string must be UTF-8.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lasp::server {

// `text` with each byte that is not part of a well-formed UTF-8 sequence replaced by U+FFFD.
std::string ValidUtf8(absl::string_view text);

}  // namespace lasp::server
