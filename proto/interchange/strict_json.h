// JSON of strangers, taken whole or not at all.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp {

// An object of at most `max_bytes` bytes. INVALID_ARGUMENT, beginning with `file`, for anything
// else, and where a key is there twice.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view file, absl::string_view text,
                                               int64_t max_bytes);

}  // namespace lasp
