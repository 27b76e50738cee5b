// A line of a token file, for a token that is its name.
#pragma once

#include <openssl/sha.h>

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace lasp::server {

inline std::string TokenLine(const std::string& token, const std::string& role,
                             const std::string& projects, const std::string& end = "never") {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest);
  return absl::StrCat(
      token, " ", role, " ", projects, " ", end, " ",
      absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof(digest)}), "\n");
}

}  // namespace lasp::server
