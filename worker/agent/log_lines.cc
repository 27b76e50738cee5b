#include "worker/agent/log_lines.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Bytes of the UTF-8 character that `text` begins with; 0 where it begins with none.
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  const size_t size = first >= 0xC2 && first < 0xE0   ? 2
                      : first >= 0xE0 && first < 0xF0 ? 3
                      : first >= 0xF0 && first < 0xF5 ? 4
                                                      : 0;
  if (size == 0 || text.size() < size) {
    return 0;
  }
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  const bool wrong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0) ||
                     (first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) >= 0x90);
  return wrong ? 0 : size;
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

void AppendUtf8(absl::string_view text, std::string* out) {
  if (IsAscii(text)) {
    out->append(text.data(), text.size());
    return;
  }
  while (!text.empty()) {
    const size_t size = CharacterBytes(text);
    if (size == 0) {
      out->append(kReplacement);
      text.remove_prefix(1);
    } else {
      out->append(text.data(), size);
      text.remove_prefix(size);
    }
  }
}

// The first bytes of `text`, at most `limit`, without cutting a character.
size_t CutBefore(absl::string_view text, size_t limit) {
  size_t cut = limit;
  while (cut > limit - 3 && (static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) {
    --cut;
  }
  return cut;
}

std::string Stamp(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ ", time, absl::UTCTimeZone());
}

void AppendLine(absl::string_view text, absl::string_view stamp, std::string* lines) {
  lines->append(stamp.data(), stamp.size());
  AppendUtf8(text, lines);
  lines->push_back('\n');
}

}  // namespace

std::string FormatLogLine(absl::string_view text, absl::Time time) {
  std::string line;
  AppendLine(text, Stamp(time), &line);
  return line;
}

void LogLines::Add(absl::string_view bytes, absl::Time now, std::string* lines) {
  // One stamp a call: a flood of short lines costs one formatted time a read.
  const std::string stamp = Stamp(now);
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const absl::string_view piece = bytes.substr(0, newline);
    partial_.append(piece.data(), piece.size());
    bytes.remove_prefix(piece.size());
    while (partial_.size() > kMaxLineBytes) {
      const size_t cut = CutBefore(partial_, kMaxLineBytes);
      AppendLine(absl::string_view(partial_).substr(0, cut), stamp, lines);
      partial_.erase(0, cut);
    }
    if (newline != absl::string_view::npos) {
      AppendLine(partial_, stamp, lines);
      partial_.clear();
      bytes.remove_prefix(1);
    }
  }
}

void LogLines::Finish(absl::Time now, std::string* lines) {
  if (!partial_.empty()) {
    AppendLine(partial_, Stamp(now), lines);
    partial_.clear();
  }
}

}  // namespace lasp::worker
