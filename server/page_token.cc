#include "server/page_token.h"

#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/hmac.h"

namespace lasp::server {
namespace {

constexpr char kVersion[] = "1";
constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 500;
constexpr size_t kMaxTokenCharacters = 4'096;

absl::Status Refused(absl::string_view why) {
  return ErrorWithReason(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("page_token ", why, ": list again from the first page, with the token left out"),
      "PAGE_TOKEN_INVALID");
}

std::string DigestOf(const std::vector<std::string>& query) {
  std::string text;
  for (const std::string& part : query) {
    absl::StrAppend(&text, part.size(), ":", part);
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof digest));
}

}  // namespace

std::string PageTokenCodec::Encode(const std::vector<std::string>& query, absl::string_view cursor,
                                   absl::Time now) const {
  const std::string payload =
      absl::StrCat(kVersion, "\n", absl::ToUnixSeconds(now), "\n", DigestOf(query), "\n", cursor);
  return absl::WebSafeBase64Escape(absl::StrCat(Hmac(secret_, payload), payload));
}

absl::StatusOr<std::string> PageTokenCodec::Decode(const std::vector<std::string>& query,
                                                   absl::string_view token, absl::Time now) const {
  std::string bytes;
  if (token.size() > kMaxTokenCharacters || !absl::WebSafeBase64Unescape(token, &bytes) ||
      bytes.size() < kHmacBytes) {
    return Refused("was not made by this coordinator");
  }
  const std::string payload = bytes.substr(kHmacBytes);
  if (!SameSecret(Hmac(secret_, payload), absl::string_view(bytes).substr(0, kHmacBytes))) {
    return Refused("was not made by this coordinator");
  }
  const std::vector<std::string> parts = absl::StrSplit(payload, absl::MaxSplits('\n', 3));
  int64_t issued = 0;
  if (parts.size() != 4 || parts[0] != kVersion || !absl::SimpleAtoi(parts[1], &issued)) {
    return Refused("was made by another version");
  }
  if (now - absl::FromUnixSeconds(issued) > kPageTokenLifetime) {
    return Refused("is too old");
  }
  if (parts[2] != DigestOf(query)) {
    return Refused("belongs to a list with another parent, filter or order");
  }
  return parts[3];
}

absl::StatusOr<int> ResolvePageSize(int page_size) {
  if (page_size < 0) {
    return InvalidFields(
        {{"page_size", absl::StrCat("is ", page_size, ": use 0 for ", kDefaultPageSize,
                                    ", or 1 to ", kMaxPageSize)}},
        "INVALID_REQUEST");
  }
  return page_size == 0 ? kDefaultPageSize : std::min(page_size, kMaxPageSize);
}

}  // namespace lasp::server
