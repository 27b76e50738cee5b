// Keyed digests: what only who knows a key can make.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace lasp {

inline constexpr size_t kHmacBytes = 32;

// HMAC-SHA256 (RFC 2104) of `text` under `key`: kHmacBytes raw bytes.
std::string Hmac(absl::string_view key, absl::string_view text);

// Whether both are the same bytes, in a time that does not tell where they differ.
bool SameSecret(absl::string_view a, absl::string_view b);

}  // namespace lasp
