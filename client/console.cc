#include "client/console.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lasp::client {
namespace {

void Write(FILE* stream, absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
}

}  // namespace

Console::Console(ColorMode color, bool quiet, int verbosity)
    : color_(color), quiet_(quiet), verbosity_(verbosity) {}

Console::~Console() { ClearProgress(); }

Terminal Console::Out() const { return DetectTerminal(STDOUT_FILENO, color_); }

Terminal Console::Error() const { return DetectTerminal(STDERR_FILENO, color_); }

void Console::Print(absl::string_view text) {
  ClearProgress();
  Write(stdout, text);
  // Whoever follows a stream through a pipe wants its lines now.
  std::fflush(stdout);
}

void Console::Note(absl::string_view line) {
  if (!quiet_) {
    Complain(line);
  }
}

void Console::Verbose(absl::string_view line) {
  if (verbosity_ > 0) {
    Complain(line);
  }
}

void Console::Complain(absl::string_view text) {
  ClearProgress();
  Write(stderr, absl::StrCat(text, "\n"));
}

void Console::DrawProgress(absl::string_view text) {
  if (quiet_ || isatty(STDERR_FILENO) == 0) {
    return;
  }
  // Back to the margin, the text, and clear what an older, longer line left.
  Write(stderr, absl::StrCat("\r", text, "\x1b[K"));
  std::fflush(stderr);
  progress_drawn_ = true;
}

void Console::ClearProgress() {
  if (progress_drawn_) {
    Write(stderr, "\r\x1b[K");
    std::fflush(stderr);
    progress_drawn_ = false;
  }
}

absl::StatusOr<bool> Console::Confirm(absl::string_view question) {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) {
    return absl::FailedPreconditionError("not confirmed, and there is no terminal to ask on");
  }
  ClearProgress();
  Write(stderr, absl::StrCat(question, " [y/N] "));
  std::fflush(stderr);
  std::string answer;
  for (int c = std::getchar(); c != EOF && c != '\n'; c = std::getchar()) {
    answer += static_cast<char>(c);
  }
  absl::AsciiStrToLower(&answer);
  return answer == "y" || answer == "yes";
}

absl::Status Console::Flush() {
  ClearProgress();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return absl::DataLossError(absl::StrCat("writing to the standard output: ",
                                            absl::ErrnoToStatus(errno, "failed").message()));
  }
  return absl::OkStatus();
}

}  // namespace lasp::client
