#include "client/surrogate_pairs.h"

#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace lasp::client {
namespace {

constexpr size_t kEscapeLength = 6;

// The code unit of a \uXXXX escape at the start of `text`.
std::optional<uint32_t> CodeUnit(absl::string_view text) {
  uint32_t unit = 0;
  if (text.size() < kEscapeLength || !absl::StartsWith(text, "\\u") ||
      !absl::SimpleHexAtoi(text.substr(2, 4), &unit)) {
    return std::nullopt;
  }
  return unit;
}

}  // namespace

std::string JoinSurrogatePairs(absl::string_view text) {
  std::string joined;
  joined.reserve(text.size());
  while (!text.empty()) {
    const auto high = CodeUnit(text);
    if (high.has_value() && *high >= 0xD800 && *high < 0xDC00) {
      const auto low = CodeUnit(text.substr(kEscapeLength));
      if (low.has_value() && *low >= 0xDC00 && *low < 0xE000) {
        absl::StrAppendFormat(&joined, "\\U%08X",
                              0x10000 + ((*high - 0xD800) << 10) + (*low - 0xDC00));
        text.remove_prefix(2 * kEscapeLength);
        continue;
      }
    }
    // A backslash takes the next character with it, so that \\u is no escape.
    const size_t length = text.front() == '\\' && text.size() > 1 ? 2 : 1;
    joined.append(text.data(), length);
    text.remove_prefix(length);
  }
  return joined;
}

}  // namespace lasp::client
