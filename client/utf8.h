// UTF-8 on a terminal: what is safe to print, and how wide it is.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lasp::client {

// Well formed, without surrogates and overlong forms.
bool IsValidUtf8(absl::string_view text);

// `text` without what could steer a terminal or hide text: control characters (a tab becomes a
// space, a line break too), C1 controls, bidirectional overrides. Bytes that are not UTF-8 become
// '?'.
std::string Printable(absl::string_view text);

// Columns on a terminal: East Asian wide characters and emoji take two, combining marks none.
int DisplayWidth(absl::string_view text);

// At most `width` columns; what is cut ends in an ellipsis (`...` where the terminal has no UTF-8).
std::string TruncateToWidth(absl::string_view text, int width, bool utf8);

}  // namespace lasp::client
