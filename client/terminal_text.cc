#include "client/terminal_text.h"

#include <algorithm>
#include <utility>

#include "client/utf8.h"

namespace lasp::client {
namespace {

// Bytes that a character has which begins with `first`; 1 where none does.
size_t CharacterBytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  if (byte < 0xC2 || byte > 0xF4) {
    return 1;
  }
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
}

bool Continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes at the end of `text` that a later one may make a character.
size_t UnfinishedBytes(absl::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const char byte = text[text.size() - length];
    if (!Continues(byte)) {
      return length < CharacterBytes(byte) ? length : 0;
    }
  }
  return 0;
}

std::string Shown(absl::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\t\n"), text.size());
    shown += Printable(text.substr(0, end));
    if (end < text.size()) {
      shown += text[end];
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return shown;
}

}  // namespace

std::string TerminalText::Add(absl::string_view bytes) {
  pending_.append(bytes.data(), bytes.size());
  const size_t held = UnfinishedBytes(pending_);
  std::string shown = Shown(absl::string_view(pending_.data(), pending_.size() - held));
  pending_.erase(0, pending_.size() - held);
  return shown;
}

std::string TerminalText::Finish() { return Shown(std::exchange(pending_, {})); }

}  // namespace lasp::client
