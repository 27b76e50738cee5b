#include "server/log_cursor.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {
namespace {

constexpr char kVersion[] = "logs1";

absl::Status Refused() {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         "resume_token: not a token of this job's logs; use one from an earlier "
                         "answer, or none to start anew",
                         "INVALID_RESUME_TOKEN");
}

}  // namespace

std::string LogCursor::ToToken(absl::string_view uid) const {
  std::string text = absl::StrCat(kVersion, " ", uid);
  for (const auto& [key, offset] : offsets) {
    absl::StrAppend(&text, " ", key.first, ".", key.second, ".", offset);
  }
  return absl::WebSafeBase64Escape(text);
}

absl::StatusOr<LogCursor> LogCursor::FromToken(absl::string_view token, absl::string_view uid) {
  std::string text;
  if (!absl::WebSafeBase64Unescape(token, &text)) {
    return Refused();
  }
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  if (words.size() < 2 || words[0] != kVersion || words[1] != uid) {
    return Refused();
  }
  LogCursor cursor;
  for (size_t i = 2; i < words.size(); ++i) {
    const std::vector<std::string> parts = absl::StrSplit(words[i], '.');
    Key key;
    int64_t offset = 0;
    if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &key.first) ||
        !absl::SimpleAtoi(parts[1], &key.second) || !absl::SimpleAtoi(parts[2], &offset) ||
        key.first < 1 || key.second < 0 || offset < 0) {
      return Refused();
    }
    cursor.offsets[key] = offset;
  }
  return cursor;
}

}  // namespace lasp::server
