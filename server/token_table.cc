#include "server/token_table.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/credential_file.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

constexpr char kFlag[] = "token_file";
constexpr size_t kColumns = 5;
// Each call compares with all of them.
constexpr size_t kMaxTokens = 10'000;

absl::Status Wrong(absl::string_view problem) { return absl::InvalidArgumentError(problem); }

// A word for a message. What stands in the wrong column may be a token or its hash.
std::string Shown(absl::string_view word) {
  constexpr size_t kShorterThanASecret = 24;
  return word.size() > kShorterThanASecret || absl::StartsWith(word, "lasp_")
             ? "a word that is not shown, for it may be secret,"
             : absl::StrCat("'", word, "'");
}

absl::Status SetProjects(absl::string_view text, Grant* grant) {
  if (text == "*") {
    grant->all_projects = true;
    return absl::OkStatus();
  }
  for (const absl::string_view project : absl::StrSplit(text, ',')) {
    if (!IsValidId(project)) {
      return Wrong(absl::StrCat(Shown(project), " is no project's id: ids joined by commas, or *"));
    }
    grant->projects.emplace(project);
  }
  return absl::OkStatus();
}

absl::Status SetEnd(absl::string_view text, Grant* grant) {
  std::string error;
  if (text != "never" && !absl::ParseTime(absl::RFC3339_full, text, &grant->end, &error)) {
    return Wrong(absl::StrCat(Shown(text), " is no time such as 2027-01-01T00:00:00Z, nor never"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TokenTable::AddLine(absl::string_view line) {
  const std::vector<absl::string_view> columns =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (columns.size() != kColumns) {
    return Wrong(absl::StrCat("has ", columns.size(),
                              " columns where name, role, projects, end and hash are needed"));
  }
  Grant grant;
  grant.name = std::string(columns[0]);
  if (!IsValidId(grant.name)) {
    return Wrong("the name is not of the form [a-z]([a-z0-9-]{0,61}[a-z0-9])?");
  }
  const auto role = ParseRole(columns[1]);
  if (!role.has_value()) {
    return Wrong(absl::StrCat(Shown(columns[1]), " is no role: viewer, editor or admin"));
  }
  grant.role = *role;
  LASP_RETURN_IF_ERROR(SetProjects(columns[2], &grant));
  LASP_RETURN_IF_ERROR(SetEnd(columns[3], &grant));
  const absl::string_view hex = columns[4];
  if (hex.size() != size_t{2} * SHA256_DIGEST_LENGTH ||
      !std::all_of(hex.begin(), hex.end(), [](char c) { return absl::ascii_isxdigit(c); })) {
    return Wrong("the last column is no SHA-256 in 64 hexadecimal digits");
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), grant.token.begin());
  if (const GrantPtr other = FindByDigest(grant.token); other != nullptr) {
    return Wrong(absl::StrCat("has the same token as ", other->name));
  }
  const auto entry = std::make_shared<const Grant>(std::move(grant));
  if (!by_name_.emplace(entry->name, entry).second) {
    return Wrong(absl::StrCat("the name ", entry->name, " is there twice"));
  }
  by_digest_.emplace(entry->token, entry);
  return absl::OkStatus();
}

absl::StatusOr<TokenTable> TokenTable::Parse(absl::string_view text) {
  TokenTable table;
  int number = 0;
  for (const absl::string_view whole : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view line = absl::StripAsciiWhitespace(whole);
    if (line.empty() || line.front() == '#') {
      continue;
    }
    absl::Status status = table.size() < kMaxTokens
                              ? table.AddLine(line)
                              : Wrong(absl::StrCat("more than ", kMaxTokens, " tokens"));
    if (!status.ok()) {
      return Wrong(absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  return table;
}

absl::StatusOr<TokenTable> TokenTable::Load(const std::string& path) {
  LASP_ASSIGN_OR_RETURN(const std::string text, ReadSecret(kFlag, path));
  auto table = Parse(text);
  if (!table.ok()) {
    return Wrong(absl::StrCat("--", kFlag, ": ", path, ": ", table.status().message()));
  }
  return table;
}

GrantPtr TokenTable::Find(absl::string_view token) const {
  TokenDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  GrantPtr found;
  for (const auto& [known, grant] : by_digest_) {
    if (CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0) {
      found = grant;
    }
  }
  return found;
}

GrantPtr TokenTable::FindByDigest(const TokenDigest& digest) const {
  const auto found = by_digest_.find(digest);
  return found == by_digest_.end() ? nullptr : found->second;
}

GrantPtr TokenTable::FindByName(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace lasp::server
