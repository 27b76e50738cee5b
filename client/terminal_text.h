// Text that comes in pieces, as a terminal may have it.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lasp::client {

// Like Printable, with tabs and line breaks as they are, and characters whole across pieces.
class TerminalText {
 public:
  // What can be shown once `bytes` have come.
  std::string Add(absl::string_view bytes);
  // What is left at the end.
  std::string Finish();

 private:
  std::string pending_;
};

}  // namespace lasp::client
