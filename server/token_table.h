// The token file: a line a token, as deploy/credentials writes it.
//
//   # name role projects end sha256(token)
//   ann editor default,nlp 2027-01-01T00:00:00Z 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c…
//   root admin * never 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/grant.h"

namespace lasp::server {

// Immutable.
class TokenTable {
 public:
  // INVALID_ARGUMENT naming the line for what is not of this form, and for a name or a hash that is
  // there twice. The message holds no hash.
  static absl::StatusOr<TokenTable> Parse(absl::string_view text);

  // Reads `path`, which only its owner may have rights on (credential_file.h).
  static absl::StatusOr<TokenTable> Load(const std::string& path);

  // Null for an unknown token. The time it takes tells nothing about the tokens there are: every
  // hash is compared, each in constant time.
  GrantPtr Find(absl::string_view token) const;

  // Null where there is none of this name, or of this hash.
  GrantPtr FindByName(absl::string_view name) const;
  GrantPtr FindByDigest(const TokenDigest& digest) const;

  size_t size() const { return by_digest_.size(); }

 private:
  absl::Status AddLine(absl::string_view line);

  std::map<TokenDigest, GrantPtr> by_digest_;
  std::map<std::string, GrantPtr, std::less<>> by_name_;
};

}  // namespace lasp::server
