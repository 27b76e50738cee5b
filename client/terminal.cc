#include "client/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lasp::client {
namespace {

constexpr int kDefaultWidth = 80;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool ColorWanted(bool is_tty, ColorMode mode) {
  if (mode != ColorMode::kAuto) {
    return mode == ColorMode::kAlways;
  }
  if (!Environment("NO_COLOR").empty()) {
    return false;
  }
  const std::string force = Environment("CLICOLOR_FORCE");
  if (!force.empty() && force != "0") {
    return true;
  }
  return is_tty && Environment("TERM") != "dumb" && Environment("CLICOLOR") != "0";
}

// The locale as setlocale would choose it, without asking which locales are installed.
bool LocaleIsUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(Environment(name));
    if (!value.empty()) {
      return absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
    }
  }
  return false;
}

int TerminalHeight(int fd) {
  winsize size = {};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_row : 0;
}

int TerminalWidth(int fd) {
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return size.ws_col;
  }
  int columns = 0;
  return absl::SimpleAtoi(Environment("COLUMNS"), &columns) && columns > 0 ? columns
                                                                           : kDefaultWidth;
}

const char* Code(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "1";
    case Style::kDim:
      return "2";
    case Style::kGood:
      return "32";
    case Style::kBad:
      return "31";
    case Style::kBusy:
      return "36";
  }
  return "";
}

}  // namespace

Terminal DetectTerminal(int fd, ColorMode mode) {
  Terminal terminal;
  terminal.is_tty = isatty(fd) != 0;
  terminal.color = ColorWanted(terminal.is_tty, mode);
  terminal.utf8 = LocaleIsUtf8();
  terminal.width = terminal.is_tty ? TerminalWidth(fd) : 0;
  terminal.height = terminal.is_tty ? TerminalHeight(fd) : 0;
  return terminal;
}

std::string Paint(absl::string_view text, Style style, bool color) {
  if (!color || style == Style::kPlain || text.empty()) {
    return std::string(text);
  }
  return absl::StrCat("\x1b[", Code(style), "m", text, "\x1b[0m");
}

}  // namespace lasp::client
