#include "client/manual_page.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/exit_code.h"

namespace lasp::client {
namespace {

// Text as it is: a backslash and a dash mean something to roff, and so does a dot or an apostrophe
// at the beginning of a line.
std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
}

std::string Line(absl::string_view text) {
  const bool special = !text.empty() && (text.front() == '.' || text.front() == '\'');
  return absl::StrCat(special ? "\\&" : "", Escaped(text), "\n");
}

std::string Lines(absl::string_view text) {
  std::string lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!line.empty()) {
      lines += Line(line);
    }
  }
  return lines;
}

std::string Head(const std::string& name, int section, const ManualEdition& edition,
                 const std::string& summary) {
  return absl::StrCat(".TH ", absl::AsciiStrToUpper(Escaped(name)), " ", section, " ", edition.date,
                      " \"lasp ", edition.version, "\" \"lasp manual\"\n.SH NAME\n", Escaped(name),
                      " \\- ", Escaped(summary), "\n");
}

std::string Verbatim(const std::vector<std::string>& lines) {
  std::string text = ".nf\n";
  for (const std::string& line : lines) {
    text += Line(line);
  }
  return text + ".fi\n";
}

std::string Options(const std::vector<FlagSpec>& flags) {
  std::string text;
  for (const FlagSpec& flag : flags) {
    absl::StrAppend(&text, ".TP\n");
    if (flag.letter != '\0') {
      absl::StrAppend(&text, "\\fB\\-", std::string(1, flag.letter), "\\fR, ");
    }
    absl::StrAppend(&text, "\\fB", Escaped(flag.name), "\\fR");
    if (flag.value_optional) {
      absl::StrAppend(&text, "[=\\fI", Escaped(flag.value), "\\fR]");
    } else if (!flag.value.empty()) {
      absl::StrAppend(&text, " \\fI", Escaped(flag.value), "\\fR");
    }
    absl::StrAppend(&text, "\n", Line(flag.help));
    if (!flag.choices.empty()) {
      absl::StrAppend(&text, "Values: ", Escaped(absl::StrJoin(flag.choices, ", ")), ".\n");
    }
  }
  return text;
}

std::string SeeAlso(const std::vector<std::string>& pages) {
  std::vector<std::string> references;
  references.reserve(pages.size());
  for (const std::string& page : pages) {
    const bool daemon = page == "lasp-server" || page == "lasp-worker";
    references.push_back(absl::StrCat(".BR ", Escaped(page), daemon ? " (8)" : " (1)"));
  }
  return absl::StrCat(".SH SEE ALSO\n", absl::StrJoin(references, " ,\n"), "\n");
}

constexpr char kEnvironment[] =
    ".SH ENVIRONMENT\n"
    ".TP\n.B LASP_SERVER\nThe coordinator, as \\-\\-server.\n"
    ".TP\n.B LASP_PROJECT\nThe project, as \\-\\-project.\n"
    ".TP\n.B LASP_CONTEXT\nThe context, as \\-\\-context.\n"
    ".TP\n.B LASP_TOKEN\nThe token itself.\n"
    ".TP\n.BR NO_COLOR \", \" CLICOLOR \", \" CLICOLOR_FORCE\nWhether output is coloured.\n"
    ".SH FILES\n"
    ".TP\n.I ~/.config/lasp/config.yaml\nContexts; only its owner may read it.\n";

}  // namespace

std::string ProgramPage(const ManualEdition& edition) {
  std::string text =
      Head("lasp", 1, edition, "train linear-attention language models on very long sequences");
  absl::StrAppend(&text, ".SH SYNOPSIS\n.B lasp\n.I COMMAND\n[\\fIflags\\fR]\n.SH DESCRIPTION\n",
                  "The command line of lasp, a training service: it submits jobs to a coordinator "
                  "and follows them.\nEach command has a page of its own.\n");
  std::vector<std::string> pages;
  for (const char* group : kCommandGroups) {
    absl::StrAppend(&text, ".SS ", group, "\n");
    for (const CommandSpec& command : Commands()) {
      if (command.group == group) {
        absl::StrAppend(&text, ".TP\n.BR lasp\\-", Escaped(command.name), " (1)\n",
                        Line(command.summary));
        pages.push_back(absl::StrCat("lasp-", command.name));
      }
    }
  }
  absl::StrAppend(&text, ".SH OPTIONS\nOf every command.\n", Options(GlobalFlags()), kEnvironment,
                  ".SH EXIT STATUS\n");
  std::vector<std::string> codes = absl::StrSplit(ExitCodeHelp(), '\n', absl::SkipEmpty());
  codes.erase(codes.begin());
  pages.insert(pages.end(), {"lasp-server", "lasp-worker"});
  return absl::StrCat(text, Verbatim(codes), SeeAlso(pages));
}

std::string CommandPage(const CommandSpec& command, const ManualEdition& edition) {
  std::string text = Head(absl::StrCat("lasp-", command.name), 1, edition, command.summary);
  absl::StrAppend(&text, ".SH SYNOPSIS\n.B lasp ", Escaped(command.name), "\n",
                  command.words.empty() ? "" : Line(command.words), "[\\fIflags\\fR]\n",
                  ".SH DESCRIPTION\n", Line(absl::StrCat(command.summary, ".")),
                  Lines(command.details));
  if (!command.flags.empty()) {
    absl::StrAppend(&text, ".SH OPTIONS\n", Options(command.flags));
  }
  absl::StrAppend(&text, ".SH OPTIONS OF EVERY COMMAND\n", Options(GlobalFlags()), ".SH EXAMPLES\n",
                  Verbatim(command.examples));
  return absl::StrCat(text, SeeAlso({"lasp"}));
}

absl::StatusOr<std::string> DaemonPage(const std::string& program, const std::string& help,
                                       const ManualEdition& edition) {
  // `PROGRAM: what it does.`, a paragraph on how it is called, one that explains, then
  // `Flags:` with `  --flag (default: x)` and its help below.
  const std::vector<std::string> lines = absl::StrSplit(help, '\n');
  const auto flags = std::find(lines.begin(), lines.end(), "Flags:");
  absl::string_view summary = lines.front();
  if (!absl::ConsumePrefix(&summary, absl::StrCat(program, ": ")) || flags == lines.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(program, " --help: expected '", program, ": ...' first, and 'Flags:'"));
  }
  absl::ConsumeSuffix(&summary, ".");
  std::string text = Head(program, 8, edition, std::string(summary));
  absl::StrAppend(&text, ".SH SYNOPSIS\n.B ", Escaped(program), "\n[\\fIflags\\fR]\n",
                  ".SH DESCRIPTION\n");
  for (auto line = lines.begin(); line != flags; ++line) {
    if (line->empty()) {
      // Between two paragraphs, and nowhere else.
      const bool between = line != lines.begin() && line + 1 != flags && !(line + 1)->empty();
      text += between ? ".PP\n" : "";
    } else {
      text += Line(absl::StripLeadingAsciiWhitespace(*line));
    }
  }
  absl::StrAppend(&text, ".SH OPTIONS\n");
  for (auto line = flags + 1; line != lines.end(); ++line) {
    const absl::string_view trimmed = absl::StripAsciiWhitespace(*line);
    if (absl::StartsWith(*line, "  --")) {
      const size_t end = trimmed.find(' ');
      const absl::string_view name = trimmed.substr(0, end);
      absl::StrAppend(&text, ".TP\n\\fB", Escaped(name), "\\fR",
                      end == absl::string_view::npos ? "" : Escaped(trimmed.substr(end)), "\n");
      const bool explained = line + 1 != lines.end() && absl::StartsWith(*(line + 1), "      ");
      if (!explained) {
        absl::StrAppend(&text, name == "--help" ? "Prints this.\n" : "Prints the version.\n");
      }
    } else if (!trimmed.empty()) {
      text += Line(trimmed);
    }
  }
  return absl::StrCat(text, SeeAlso({"lasp"}));
}

}  // namespace lasp::client
