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

// As `lasp __names` takes it.
const char* KindName(NameKind kind) {
  switch (kind) {
    case NameKind::kJobs:
      return "jobs";
    case NameKind::kWorkers:
      return "workers";
    case NameKind::kProjects:
      return "projects";
    case NameKind::kContexts:
      return "contexts";
    case NameKind::kNone:
      break;
  }
  return "";
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
        flag.is_file ? "compgen -f -- \"$current\""
        : flag.names != NameKind::kNone
            ? absl::StrCat("compgen -W \"$(_lasp_names ", KindName(flag.names),
                           ")\" -- \"$current\"")
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
    absl::StrAppend(&words, "    ", command.name, ") words=\"", absl::StrJoin(all, " "), "\"",
                    command.word_names == NameKind::kNone
                        ? ""
                        : absl::StrCat("; names=", KindName(command.word_names)),
                    " ;;\n");
  }
  return absl::StrCat(
      "# bash completion for lasp: source <(lasp completion bash)\n"
      "_lasp_names() {\n"
      "  \"${COMP_WORDS[0]}\" __names \"$1\" \"${COMP_WORDS[@]:1:COMP_CWORD-1}\" 2>/dev/null\n"
      "}\n"
      "_lasp() {\n"
      "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      "  local command=\"\" words=\"\" names=\"\" i\n"
      "  if [[ $current == = ]]; then\n"
      "    current=\"\"\n"
      "  elif [[ $previous == = && COMP_CWORD -gt 2 ]]; then\n"
      "    previous=\"${COMP_WORDS[COMP_CWORD-2]}\"\n"
      "  fi\n"
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
      "  [[ -z $names || $current == -* ]] || words+=\" $(_lasp_names \"$names\")\"\n"
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
    value = absl::StrCat(
        ":", absl::StrReplaceAll(flag.value, {{":", "\\:"}}), ":",
        flag.is_file                    ? "_files"
        : flag.names != NameKind::kNone ? absl::StrCat(" _lasp_names ", KindName(flag.names))
        : flag.choices.empty()          ? ""
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

// A command's words: the few there are first, then names.
std::string ZshWords(const CommandSpec& command) {
  const auto choices = WordChoices(command);
  const std::string few = absl::StrCat(":(", absl::StrJoin(choices, " "), ")");
  if (command.word_names == NameKind::kNone) {
    return absl::StrCat(" ", SingleQuoted(absl::StrCat("*: ", few)));
  }
  const std::string names =
      SingleQuoted(absl::StrCat("*: : _lasp_names ", KindName(command.word_names)));
  return choices.empty() ? absl::StrCat(" ", names)
                         : absl::StrCat(" ", SingleQuoted(absl::StrCat("1: ", few)), " ", names);
}

std::string ZshScript() {
  std::string commands;
  std::string cases;
  for (const CommandSpec& command : Commands()) {
    absl::StrAppend(&commands, "    ",
                    SingleQuoted(absl::StrCat(command.name, ":", command.summary)), "\n");
    absl::StrAppend(&cases, "    ", command.name, ") _arguments $global", ZshFlags(command.flags),
                    ZshWords(command), " ;;\n");
  }
  return absl::StrCat(
      "#compdef lasp\n"
      "# zsh completion for lasp: lasp completion zsh > a folder of $fpath/_lasp\n"
      "_lasp_names() {\n"
      "  local -a names\n"
      "  names=(${(f)\"$(\"$lasp_words[1]\" __names $1 \"${(@)lasp_words[2,-1]}\" "
      "2>/dev/null)\"})\n"
      "  compadd -a names\n"
      "}\n"
      "_lasp() {\n"
      "  local -a commands global lasp_words\n"
      "  lasp_words=(\"${(@)words[1,CURRENT-1]}\")\n"
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
    } else if (flag.names != NameKind::kNone) {
      absl::StrAppend(&text, " -a '(__lasp_names ", KindName(flag.names), ")'");
    }
  }
  absl::StrAppend(&text, " -d ", SingleQuoted(flag.help), "\n");
  return text;
}

std::string FishScript() {
  std::string text =
      "# fish completion for lasp\n"
      "function __lasp_names\n"
      "    set -l words (commandline -opc)\n"
      "    $words[1] __names $argv[1] $words[2..-1] 2>/dev/null\n"
      "end\n"
      "complete -c lasp -f\n";
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
    if (command.word_names != NameKind::kNone) {
      absl::StrAppend(&text, "complete -c lasp -n ", SingleQuoted(chosen), " -a '(__lasp_names ",
                      KindName(command.word_names), ")'\n");
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
