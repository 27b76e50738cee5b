// What the standard streams can show.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lasp::client {

enum class ColorMode { kAuto, kAlways, kNever };

// One output stream.
struct Terminal {
  bool is_tty = false;
  bool color = false;
  bool utf8 = false;
  // Columns; 0 where the stream is no terminal, and then nothing is cut.
  int width = 0;
  // Lines; 0 where that is not known.
  int height = 0;
};

// Asks the stream `fd` and the environment: NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM, LC_ALL,
// LC_CTYPE, LANG, COLUMNS. `mode` wins over the environment.
Terminal DetectTerminal(int fd, ColorMode mode);

// The 16-colour palette only. State is never shown by colour alone.
enum class Style { kPlain, kBold, kDim, kGood, kBad, kBusy };

// `text` in the style, where `color`.
std::string Paint(absl::string_view text, Style style, bool color);

}  // namespace lasp::client
