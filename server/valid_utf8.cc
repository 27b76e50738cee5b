#include "server/valid_utf8.h"

namespace lasp::server {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

bool IsContinuation(unsigned char byte) { return (byte & 0xc0) == 0x80; }

// The length of the well-formed sequence at the start of `text` (RFC 3629, table 3-7 of Unicode);
// 0 where there is none.
size_t SequenceLength(absl::string_view text) {
  const auto at = [&text](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : static_cast<unsigned char>(0);
  };
  const unsigned char first = at(0);
  const unsigned char second = at(1);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xc2 && first <= 0xdf) {
    return IsContinuation(second) ? 2 : 0;
  }
  if (first >= 0xe0 && first <= 0xef) {
    const bool overlong = first == 0xe0 && second < 0xa0;
    const bool surrogate = first == 0xed && second > 0x9f;
    return IsContinuation(second) && !overlong && !surrogate && IsContinuation(at(2)) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && second < 0x90;
    const bool beyond = first == 0xf4 && second > 0x8f;
    return IsContinuation(second) && !overlong && !beyond && IsContinuation(at(2)) &&
                   IsContinuation(at(3))
               ? 4
               : 0;
  }
  return 0;
}

}  // namespace

std::string ValidUtf8(absl::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length > 0) {
      valid.append(text.data(), length);
      text.remove_prefix(length);
    } else {
      valid += kReplacement;
      text.remove_prefix(1);
    }
  }
  return valid;
}

}  // namespace lasp::server
