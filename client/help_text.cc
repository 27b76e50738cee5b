#include "client/help_text.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lasp::client {
namespace {

using Rows = std::vector<std::pair<std::string, std::string>>;

// Two columns, the left one as wide as its widest text.
std::string Columns(const Rows& rows) {
  size_t width = 0;
  for (const auto& [left, right] : rows) {
    width = std::max(width, left.size());
  }
  std::string text;
  for (const auto& [left, right] : rows) {
    absl::StrAppendFormat(&text, "  %-*s  %s\n", static_cast<int>(width), left, right);
  }
  return text;
}

std::string FlagColumn(const FlagSpec& flag) {
  std::string column =
      flag.letter == '\0' ? "    " : absl::StrCat("-", std::string(1, flag.letter), ", ");
  absl::StrAppend(&column, flag.name);
  if (flag.value_optional) {
    absl::StrAppend(&column, "[=", flag.value, "]");
  } else if (!flag.value.empty()) {
    absl::StrAppend(&column, " ", flag.value);
  }
  return column;
}

std::string FlagRows(const std::vector<FlagSpec>& flags) {
  Rows rows;
  for (const FlagSpec& flag : flags) {
    rows.emplace_back(FlagColumn(flag), flag.help);
  }
  return Columns(rows);
}

std::string Examples(const std::vector<std::string>& examples) {
  std::string text = "\nExamples:\n";
  for (const std::string& example : examples) {
    absl::StrAppend(&text, "  ", example, "\n");
  }
  return text;
}

}  // namespace

std::string ProgramHelp() {
  std::string text =
      "lasp trains linear-attention language models on very long sequences.\n\n"
      "Usage: lasp COMMAND [flags]\n";
  for (const char* group : kCommandGroups) {
    Rows rows;
    for (const CommandSpec& command : Commands()) {
      if (command.group == group) {
        rows.emplace_back(absl::StrFormat("%-10s", command.name), command.summary);
      }
    }
    absl::StrAppend(&text, "\n", group, ":\n", Columns(rows));
  }
  absl::StrAppend(&text, "\nFlags of every command:\n", FlagRows(GlobalFlags()));
  absl::StrAppend(&text, Examples({"lasp submit -f job.yaml --wait", "lasp describe NAME",
                                   "lasp logs NAME -f", "lasp help submit"}));
  return text;
}

std::string CommandHelp(const CommandSpec& command) {
  std::string text = absl::StrCat(command.summary, ".\n\nUsage: lasp ", command.name,
                                  command.words.empty() ? "" : " ", command.words, " [flags]\n");
  if (!command.details.empty()) {
    absl::StrAppend(&text, "\n", command.details, "\n");
  }
  if (!command.flags.empty()) {
    absl::StrAppend(&text, "\nFlags:\n", FlagRows(command.flags));
  }
  absl::StrAppend(&text, Examples(command.examples));
  absl::StrAppend(&text, "\nFlags of every command (--server, --project, -o, ...): lasp --help\n");
  return text;
}

}  // namespace lasp::client
