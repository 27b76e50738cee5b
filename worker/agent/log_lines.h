// Turns what a rank writes into the lines of its log.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::worker {

// Text of one line; longer ones are split.
inline constexpr size_t kMaxLineBytes = 64 << 10;

// `YYYY-MM-DDTHH:MM:SS.ffffffZ text\n`. Bytes that are not UTF-8 become U+FFFD.
std::string FormatLogLine(absl::string_view text, absl::Time time);

// Not thread-safe.
class LogLines {
 public:
  // Appends the lines that `bytes` completes to `lines`, stamped `now`.
  void Add(absl::string_view bytes, absl::Time now, std::string* lines);
  // Appends what is left of a line without end.
  void Finish(absl::Time now, std::string* lines);

 private:
  std::string partial_;
};

}  // namespace lasp::worker
