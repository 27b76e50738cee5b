// JSON writes characters beyond U+FFFF as two \u escapes; YAML parsers know only \U.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lasp::client {

// `text` with each \uD8xx\uDCxx pair rewritten as one \U escape of the same character.
std::string JoinSurrogatePairs(absl::string_view text);

}  // namespace lasp::client
