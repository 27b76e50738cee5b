#include "client/utf8.h"

#include <algorithm>
#include <cstdint>

namespace lasp::client {
namespace {

constexpr uint32_t kInvalid = 0xFFFFFFFF;

// Takes one code point off the front of `text` (not empty); kInvalid takes one byte.
uint32_t TakeCodePoint(absl::string_view* text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>((*text)[i]); };
  const unsigned char first = byte(0);
  const size_t length = first < 0x80             ? 1
                        : (first & 0xE0) == 0xC0 ? 2
                        : (first & 0xF0) == 0xE0 ? 3
                        : (first & 0xF8) == 0xF0 ? 4
                                                 : 0;
  constexpr uint32_t kLowest[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t code = length < 2 ? first : first & (0xFFU >> (length + 1));
  bool valid = length > 0 && length <= text->size();
  for (size_t i = 1; valid && i < length; ++i) {
    valid = (byte(i) & 0xC0) == 0x80;
    code = (code << 6) | (byte(i) & 0x3FU);
  }
  valid = valid && code >= kLowest[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  text->remove_prefix(valid ? length : 1);
  return valid ? code : kInvalid;
}

bool InRange(uint32_t code, uint32_t lowest, uint32_t highest) {
  return code >= lowest && code <= highest;
}

bool Steers(uint32_t code) {
  return code < 0x20 || InRange(code, 0x7F, 0x9F) || InRange(code, 0x202A, 0x202E) ||
         InRange(code, 0x2066, 0x2069) || code == 0x200E || code == 0x200F || code == 0x2028 ||
         code == 0x2029;
}

int CodePointWidth(uint32_t code) {
  if (InRange(code, 0x300, 0x36F) || InRange(code, 0x200B, 0x200D) ||
      InRange(code, 0x20D0, 0x20FF) || InRange(code, 0xFE00, 0xFE0F)) {
    return 0;
  }
  const bool wide = InRange(code, 0x1100, 0x115F) || InRange(code, 0x2E80, 0xA4CF) ||
                    InRange(code, 0xAC00, 0xD7A3) || InRange(code, 0xF900, 0xFAFF) ||
                    InRange(code, 0xFE30, 0xFE6F) || InRange(code, 0xFF00, 0xFF60) ||
                    InRange(code, 0xFFE0, 0xFFE6) || InRange(code, 0x1F300, 0x1F64F) ||
                    InRange(code, 0x1F680, 0x1F6FF) || InRange(code, 0x1F900, 0x1F9FF) ||
                    InRange(code, 0x20000, 0x3FFFD);
  return wide ? 2 : 1;
}

}  // namespace

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    if (TakeCodePoint(&text) == kInvalid) {
      return false;
    }
  }
  return true;
}

std::string Printable(absl::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const absl::string_view before = text;
    const uint32_t code = TakeCodePoint(&text);
    if (code == kInvalid) {
      printable += '?';
    } else if (code == '\t' || code == '\n') {
      printable += ' ';
    } else if (!Steers(code)) {
      printable.append(before.data(), before.size() - text.size());
    }
  }
  return printable;
}

int DisplayWidth(absl::string_view text) {
  int width = 0;
  while (!text.empty()) {
    width += CodePointWidth(TakeCodePoint(&text));
  }
  return width;
}

std::string TruncateToWidth(absl::string_view text, int width, bool utf8) {
  if (DisplayWidth(text) <= width) {
    return std::string(text);
  }
  const absl::string_view ellipsis = utf8 ? "\xE2\x80\xA6" : "...";
  const int ellipsis_width = utf8 ? 1 : 3;
  if (width <= ellipsis_width) {
    return std::string(static_cast<size_t>(std::max(width, 0)), '.');
  }
  std::string cut;
  int used = 0;
  while (!text.empty()) {
    const absl::string_view before = text;
    used += CodePointWidth(TakeCodePoint(&text));
    if (used > width - ellipsis_width) {
      break;
    }
    cut.append(before.data(), before.size() - text.size());
  }
  cut.append(ellipsis.data(), ellipsis.size());
  return cut;
}

}  // namespace lasp::client
