#include "proto/rpc/flag_arguments.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/version.h"

namespace lasp {
namespace {

void PrintHelp(const ProgramHelp& help) {
  std::printf("%s\n\nFlags:\n", help.text.c_str());
  std::map<std::string, absl::CommandLineFlag*> own;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::EndsWith(flag->Filename(), help.flags_file)) {
      own[std::string(name)] = flag;
    }
  }
  for (const auto& [name, flag] : own) {
    const std::string value = flag->DefaultValue();
    std::printf("  --%s (default: %s)\n      %s\n", name.c_str(),
                value.empty() ? "none" : value.c_str(), flag->Help().c_str());
  }
  std::printf(
      "  --flagfile=FILE (default: none)\n      Reads flags from a file, one a line.\n"
      "  --version\n  --help\n");
}

// `next` is the argument after it, null at the end; `*took_next` is set where it is the flag's
// value.
absl::Status CheckFlag(absl::string_view argument, const char* next, bool* took_next) {
  const size_t equals = argument.find('=');
  const absl::string_view name = argument.substr(0, equals);
  absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
  const bool negated = flag == nullptr && absl::StartsWith(name, "no");
  if (negated) {
    flag = absl::FindCommandLineFlag(name.substr(2));
  }
  if (flag == nullptr || (negated && !flag->IsOfType<bool>())) {
    return FlagError(name, "no such flag: --help lists them");
  }
  if (equals == absl::string_view::npos && flag->IsOfType<bool>()) {
    return absl::OkStatus();
  }
  absl::string_view value;
  if (equals != absl::string_view::npos) {
    value = argument.substr(equals + 1);
  } else if (next != nullptr) {
    value = next;
    *took_next = true;
  } else {
    return FlagError(name, "needs a value");
  }
  std::string problem;
  if (!flag->ParseFrom(value, &problem)) {
    return FlagError(
        name, absl::StrCat("'", value, "' is not allowed", problem.empty() ? "" : ": ", problem));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseFlagArguments(int argc, char** argv, const ProgramHelp& help) {
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::ConsumePrefix(&argument, "-") || argument.empty() || argument == "-") {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected argument '", argv[i], "': all settings are --flags"));
    }
    absl::ConsumePrefix(&argument, "-");
    if (argument == "help" || argument == "h") {
      PrintHelp(help);
      std::exit(0);  // NOLINT(concurrency-mt-unsafe): no other thread exists yet
    }
    if (argument == "version") {
      std::printf("%s %s (%s)\n", help.program.c_str(), Version(), Revision());
      std::exit(0);  // NOLINT(concurrency-mt-unsafe)
    }
    bool took_next = false;
    LASP_RETURN_IF_ERROR(CheckFlag(argument, i + 1 < argc ? argv[i + 1] : nullptr, &took_next));
    i += took_next ? 1 : 0;
  }
  absl::ParseCommandLine(argc, argv);
  return absl::OkStatus();
}

absl::Status FlagError(absl::string_view flag, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", problem));
}

absl::StatusOr<LogLevel> ParseLogLevel(const std::string& name) {
  const std::map<std::string, LogLevel> levels = {{"debug", LogLevel::kDebug},
                                                  {"info", LogLevel::kInfo},
                                                  {"warning", LogLevel::kWarning},
                                                  {"error", LogLevel::kError}};
  const auto level = levels.find(name);
  if (level == levels.end()) {
    return FlagError("log_level", absl::StrCat("'", name, "': use debug, info, warning or error"));
  }
  return level->second;
}

std::string ServingLine(const std::vector<std::pair<std::string, std::string>>& values) {
  nlohmann::ordered_json line;
  for (const auto& [flag, value] : values) {
    line[flag] = value;
  }
  // Replaces what is not UTF-8 rather than throwing.
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace lasp
