// The three streams of the command line: data on stdout, everything else on stderr, and one
// progress line that lives at the bottom of a terminal.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/terminal.h"

namespace lasp::client {

// Used by one thread.
class Console {
 public:
  Console(ColorMode color, bool quiet, int verbosity);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // The width is asked anew each time: windows are resized.
  Terminal Out() const;
  Terminal Error() const;

  // Data, as it is.
  void Print(absl::string_view text);
  // A line for the person, nothing with --quiet.
  void Note(absl::string_view line);
  // A line with -v only.
  void Verbose(absl::string_view line);
  // A line of an error report: always.
  void Complain(absl::string_view text);

  // Redraws the progress line; `text` must fit the terminal. Nothing where stderr is no terminal,
  // or with --quiet.
  void DrawProgress(absl::string_view text);
  // Takes the progress line away, for good or until the next DrawProgress.
  void ClearProgress();

  bool quiet() const { return quiet_; }

  int verbosity() const { return verbosity_; }

  // Asks a yes-or-no question. FAILED_PRECONDITION where no person is there to answer.
  absl::StatusOr<bool> Confirm(absl::string_view question);

  // Whether all data has reached stdout. Call once, at the end.
  absl::Status Flush();

 private:
  const ColorMode color_;
  const bool quiet_;
  const int verbosity_;
  bool progress_drawn_ = false;
};

}  // namespace lasp::client
