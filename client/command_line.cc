#include "client/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/connection_options.h"
#include "client/error_report.h"
#include "client/flag_values.h"
#include "client/nearest_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

// A flag of the table and the option that parses it.
struct BoundFlag {
  const FlagSpec* spec;
  CLI::Option* option;
};

// CLI11 only splits the words into commands, flags and the rest; what they mean, and what to say of
// wrong ones, is the table's.
struct Parser {
  CLI::App app;
  std::deque<std::vector<std::string>> values;
  std::vector<BoundFlag> flags;
  std::vector<std::string> words;

  void Add(CLI::App* command, const FlagSpec& spec) {
    std::string names = spec.name;
    if (spec.letter != '\0') {
      absl::StrAppend(&names, ",-", std::string(1, spec.letter));
    }
    CLI::Option* option = nullptr;
    if (spec.value.empty()) {
      option = command->add_flag(names);
    } else {
      option = command->add_option(names, values.emplace_back());
      option->allow_extra_args(false);
      if (spec.value_optional) {
        option->expected(0, 1)->default_str(spec.choices.front());
      }
    }
    flags.push_back({&spec, option});
  }

  Parser() {
    app.set_help_flag();
    app.allow_extras();
    app.fallthrough();
    app.require_subcommand(0, 1);
    for (const FlagSpec& flag : GlobalFlags()) {
      Add(&app, flag);
    }
    app.add_flag("--version");
    for (const CommandSpec& spec : Commands()) {
      CLI::App* const command = app.add_subcommand(spec.name);
      for (const FlagSpec& flag : spec.flags) {
        Add(command, flag);
      }
      command->add_option("words", words);
    }
  }
};

std::string HelpHint(const std::string& command) {
  return command.empty() ? "'lasp --help' lists the commands"
                         : absl::StrCat("'lasp ", command, " --help' shows its flags");
}

absl::Status UsageError(const std::string& command, const std::string& why) {
  return WithHint(absl::InvalidArgumentError(why), HelpHint(command));
}

absl::Status UnknownWord(const std::string& command, const std::string& word) {
  if (!absl::StartsWith(word, "-")) {
    return UsageError(
        command, absl::StrCat("unknown command '", word, "'", Suggestion(word, CommandNames())));
  }
  std::vector<std::string> names;
  names.reserve(GlobalFlags().size());
  for (const FlagSpec& flag : GlobalFlags()) {
    names.push_back(flag.name);
  }
  if (const CommandSpec* spec = FindCommand(command)) {
    for (const FlagSpec& flag : spec->flags) {
      names.push_back(flag.name);
    }
  }
  const std::string name = word.substr(0, word.find('='));
  return UsageError(command, absl::StrCat("unknown flag ", name, Suggestion(name, names)));
}

absl::Status SetFlags(const Parser& parser, CommandLine* line) {
  for (const BoundFlag& flag : parser.flags) {
    if (flag.option->count() == 0) {
      continue;
    }
    if (flag.spec->value.empty()) {
      for (size_t i = 0; i < flag.option->count(); ++i) {
        LASP_RETURN_IF_ERROR(flag.spec->set("", line));
      }
      continue;
    }
    for (const std::string& value : flag.option->results()) {
      std::string given = value;
      if (value.empty() && flag.spec->value_optional) {
        given = flag.spec->choices.front();
      } else if (!flag.spec->choices.empty() && absl::StartsWith(value, "=")) {
        given = value.substr(1);  // -o=json
      }
      if (const absl::Status status = flag.spec->set(given, line); !status.ok()) {
        return UsageError(line->command, std::string(status.message()));
      }
    }
  }
  return absl::OkStatus();
}

// The others also work where the file of contexts is broken; `config` mends it.
bool NeedsCoordinator(const CommandLine& line) {
  return !line.help && line.command != "config" && line.command != "help" &&
         line.command != "completion";
}

// The command's name, or empty.
std::string ChosenCommand(const Parser& parser) {
  const auto chosen = parser.app.get_subcommands();
  return chosen.empty() ? "" : chosen.front()->get_name();
}

}  // namespace

// The fence: CLI11 throws, nothing above this function does.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  CommandLine line;
  try {
    Parser parser;
    try {
      std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
      parser.app.parse(reversed);
    } catch (const CLI::ArgumentMismatch& error) {
      // "--file: 1 required TEXT missing": only the flag's name is of use.
      const std::string text = error.what();
      return UsageError(ChosenCommand(parser),
                        absl::StrCat(text.substr(0, text.find(':')), " needs a value"));
    } catch (const CLI::ParseError& error) {
      return UsageError(ChosenCommand(parser), error.what());
    }
    line.command = ChosenCommand(parser);
    const std::vector<std::string> unknown = parser.app.remaining(true);
    if (!unknown.empty()) {
      return UnknownWord(line.command, unknown.front());
    }
    line.words = parser.words;
    line.version = parser.app.count("--version") > 0;
    LASP_RETURN_IF_ERROR(SetFlags(parser, &line));
    if (NeedsCoordinator(line)) {
      LASP_RETURN_IF_ERROR(FillIn(&line.global));
    }
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("reading the command line: ", error.what()));
  }
  const CommandSpec* spec = FindCommand(line.command);
  if (spec != nullptr && spec->words.empty() && !line.words.empty() && !line.help) {
    return UsageError(line.command,
                      absl::StrCat("unexpected word '", line.words.front(), "'",
                                   line.command == "submit" ? "; give the file with -f" : ""));
  }
  return line;
}

}  // namespace lasp::client
