// Page tokens: where the next page begins, opaque to clients and bound to the query they came from.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::server {

// How long a token may be used after it was given out.
inline constexpr absl::Duration kPageTokenLifetime = absl::Hours(72);

// More than any list needs.
inline constexpr size_t kMaxPageCursorBytes = 2'900;

// A token is base64url(HMAC-SHA256 | version, issue time, digest of the query, cursor). The secret
// is the store's own, so that tokens hold over a restart of the coordinator and not on another one.
class PageTokenCodec {
 public:
  explicit PageTokenCodec(std::string secret) : secret_(std::move(secret)) {}

  // `query` is all that decides the list besides the page (for example parent, filter and order);
  // `cursor` any bytes, at most
  // kMaxPageCursorBytes: what is longer would be refused when it comes back.
  std::string Encode(const std::vector<std::string>& query, absl::string_view cursor,
                     absl::Time now) const;

  // The cursor. INVALID_ARGUMENT with reason PAGE_TOKEN_INVALID when it was not made here, is too
  // old or belongs to another query.
  absl::StatusOr<std::string> Decode(const std::vector<std::string>& query, absl::string_view token,
                                     absl::Time now) const;

 private:
  const std::string secret_;
};

// page_size as given to the size used: 0 is 50, more than 500 is 500; negative is INVALID_ARGUMENT.
absl::StatusOr<int> ResolvePageSize(int page_size);

}  // namespace lasp::server
