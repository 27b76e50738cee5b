#include "client/completion.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/command_tree.h"
#include "client/nearest_name.h"

namespace lasp::client {
namespace {

std::string SingleQuoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::vector<std::string> FlagNames(const std::vector<FlagSpec>& flags) {
  std::vector<std::string> names;
  for (const FlagSpec& flag : flags) {
    names.push_back(flag.name);
    if (flag.letter != '\0') {
      names.push_back(absl::StrCat("-", std::string(1, flag.letter)));
    }
  }
  return names;
}

std::vector<std::string> WordChoices(const CommandSpec& command) {
  if (command.name == "help") {
    std::vector<std::string> topics = CommandNames();
    topics.emplace_back("exit-codes");
    return topics;
  }
  return command.word_choices;
}

// `pattern) COMPREPLY=(…); return;;` for each flag whose values are known, or are files.
std::string BashValueCases(const std::vector<FlagSpec>& flags, const std::string& prefix) {
  std::string text;
  for (const FlagSpec& flag : flags) {
    if (flag.value.empty()) {
      continue;
    }
    std::vector<std::string> patterns;
    for (const std::string& name : FlagNames({flag})) {
      patterns.push_back(prefix + name);
    }
    const std::string action =
        flag.is_file
            ? "compgen -f -- \"$current\""
            : absl::StrCat("compgen -W \"", absl::StrJoin(flag.choices, " "), "\" -- \"$current\"");
    absl::StrAppend(&text, "    ", absl::StrJoin(patterns, "|"), ")\n");
    absl::StrAppend(&text, "      mapfile -t COMPREPLY < <(", action, ")\n      return ;;\n");
  }
  return text;
}

std::string BashScript() {
  std::string values = BashValueCases(GlobalFlags(), "*:");
  std::string words;
  for (const CommandSpec& command : Commands()) {
    absl::StrAppend(&values, BashValueCases(command.flags, command.name + ":"));
    std::vector<std::string> all = FlagNames(command.flags);
    const auto choices = WordChoices(command);
    all.insert(all.end(), choices.begin(), choices.end());
    absl::StrAppend(&words, "    ", command.name, ") words=\"", absl::StrJoin(all, " "), "\" ;;\n");
  }
  return absl::StrCat(
      "# bash completion for lasp: source <(lasp completion bash)\n"
      "_lasp() {\n"
      "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      "  local command=\"\" words=\"\" i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \" ",
      absl::StrJoin(CommandNames(), " "),
      " \" in\n"
      "      *\" ${COMP_WORDS[i]} \"*) command=\"${COMP_WORDS[i]}\"; break ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$command:$previous\" in\n",
      values,
      "  esac\n"
      "  case \"$command\" in\n"
      "    \"\") words=\"",
      absl::StrJoin(CommandNames(), " "), "\" ;;\n", words,
      "  esac\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$words ",
      absl::StrJoin(FlagNames(GlobalFlags()), " "),
      "\" -- \"$current\")\n"
      "}\n"
      "complete -F _lasp lasp\n");
}

// One `_arguments` specification of zsh.
std::string ZshFlag(const FlagSpec& flag) {
  const std::string help =
      absl::StrReplaceAll(flag.help, {{"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
  std::string value;
  if (!flag.value.empty()) {
    value = absl::StrCat(":", absl::StrReplaceAll(flag.value, {{":", "\\:"}}), ":",
                         flag.is_file ? "_files"
                         : flag.choices.empty()
                             ? ""
                             : absl::StrCat("(", absl::StrJoin(flag.choices, " "), ")"));
  }
  std::string text;
  for (const std::string& name : FlagNames({flag})) {
    absl::StrAppend(&text, " ", SingleQuoted(absl::StrCat("*", name, "[", help, "]", value)));
  }
  return text;
}

std::string ZshFlags(const std::vector<FlagSpec>& flags) {
  std::string text;
  for (const FlagSpec& flag : flags) {
    absl::StrAppend(&text, ZshFlag(flag));
  }
  return text;
}

std::string ZshScript() {
  std::string commands;
  std::string cases;
  for (const CommandSpec& command : Commands()) {
    absl::StrAppend(&commands, "    ",
                    SingleQuoted(absl::StrCat(command.name, ":", command.summary)), "\n");
    absl::StrAppend(
        &cases, "    ", command.name, ") _arguments $global", ZshFlags(command.flags), " ",
        SingleQuoted(absl::StrCat("*: :(", absl::StrJoin(WordChoices(command), " "), ")")),
        " ;;\n");
  }
  return absl::StrCat(
      "#compdef lasp\n"
      "# zsh completion for lasp: lasp completion zsh > a folder of $fpath/_lasp\n"
      "_lasp() {\n"
      "  local -a commands global\n"
      "  local context state state_descr line\n"
      "  typeset -A opt_args\n"
      "  commands=(\n",
      commands, "  )\n  global=(", ZshFlags(GlobalFlags()),
      ")\n"
      "  _arguments -C $global '1:command:->command' '*::argument:->argument' && return\n"
      "  if [[ $state == command ]]; then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  case $line[1] in\n",
      cases,
      "  esac\n"
      "}\n"
      "if [[ \"$funcstack[1]\" == _lasp ]]; then _lasp \"$@\"; else compdef _lasp lasp; fi\n");
}

std::string FishFlag(const FlagSpec& flag, const std::string& condition) {
  std::string text = "complete -c lasp";
  if (!condition.empty()) {
    absl::StrAppend(&text, " -n ", SingleQuoted(condition));
  }
  if (flag.letter != '\0') {
    absl::StrAppend(&text, " -s ", std::string(1, flag.letter));
  }
  absl::StrAppend(&text, " -l ", flag.name.substr(2));
  if (!flag.value.empty()) {
    absl::StrAppend(&text, flag.is_file ? " -r -F" : " -x");
    if (!flag.choices.empty()) {
      absl::StrAppend(&text, " -a ", SingleQuoted(absl::StrJoin(flag.choices, " ")));
    }
  }
  absl::StrAppend(&text, " -d ", SingleQuoted(flag.help), "\n");
  return text;
}

std::string FishScript() {
  std::string text = "# fish completion for lasp\ncomplete -c lasp -f\n";
  for (const FlagSpec& flag : GlobalFlags()) {
    absl::StrAppend(&text, FishFlag(flag, ""));
  }
  for (const CommandSpec& command : Commands()) {
    absl::StrAppend(&text, "complete -c lasp -n __fish_use_subcommand -a ", command.name, " -d ",
                    SingleQuoted(command.summary), "\n");
    const std::string chosen = absl::StrCat("__fish_seen_subcommand_from ", command.name);
    for (const FlagSpec& flag : command.flags) {
      absl::StrAppend(&text, FishFlag(flag, chosen));
    }
    const auto choices = WordChoices(command);
    if (!choices.empty()) {
      absl::StrAppend(&text, "complete -c lasp -n ", SingleQuoted(chosen), " -a ",
                      SingleQuoted(absl::StrJoin(choices, " ")), "\n");
    }
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(const std::string& shell) {
  if (shell == "bash") {
    return BashScript();
  }
  if (shell == "zsh") {
    return ZshScript();
  }
  if (shell == "fish") {
    return FishScript();
  }
  return absl::InvalidArgumentError(absl::StrCat("expected bash, zsh or fish, got '", shell, "'",
                                                 Suggestion(shell, {"bash", "zsh", "fish"})));
}

}  // namespace lasp::client
