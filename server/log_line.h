// The lines of a rank's log: `YYYY-MM-DDTHH:MM:SS.ffffffZ text\n`.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::server {

struct LogLineParts {
  // The epoch where the line does not begin with a time.
  absl::Time time = absl::UnixEpoch();
  absl::string_view text;
};

// Splits one line, given without its line feed.
LogLineParts SplitLogLine(absl::string_view line);

}  // namespace lasp::server
