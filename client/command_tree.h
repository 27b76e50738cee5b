// The commands and flags of `lasp` as one table. Parsing, help texts, completion scripts and manual
// pages are all made from it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/model_options.h"
#include "client/options.h"

namespace lasp::client {

// What a command line says, whole.
struct CommandLine {
  GlobalOptions global;
  std::string command;
  std::vector<std::string> words;
  SubmitOptions submit;
  ListOptions list;
  MetricsOptions metrics;
  TopOptions top;
  PlotOptions plot;
  EventsOptions events;
  LogOptions logs;
  AuditOptions audit;
  ExportOptions exporting;
  ModelOptions model;
  SampleOptions sample;
  EvaluateOptions evaluate;
  bool yes = false;
  bool undo = false;
  bool client_only = false;
  bool help = false;
  bool version = false;
};

// Which names that only the coordinator or a file knows complete a value or a word.
enum class NameKind { kNone, kJobs, kWorkers, kProjects, kContexts };

struct FlagSpec {
  // Long, with its dashes; and a letter or '\0'.
  std::string name;
  char letter = '\0';
  // What its value is called, empty for a switch.
  std::string value;
  std::string help;
  // Takes each value, in order; "" for a switch. INVALID_ARGUMENT says what was expected.
  absl::Status (*set)(const std::string& value, CommandLine* line) = nullptr;
  // All values there are, where they are few.
  std::vector<std::string> choices = {};
  // Whether the value is a file's path.
  bool is_file = false;
  // Whether `--flag` alone is allowed and means the first choice.
  bool value_optional = false;
  NameKind names = NameKind::kNone;
};

struct CommandSpec {
  std::string name;
  std::string group;
  // For example "NAME" or "[NAME]"; empty where it takes no words.
  std::string words;
  std::string summary;
  std::string details;
  std::vector<std::string> examples;
  std::vector<FlagSpec> flags = {};
  // All words there are, where they are few.
  std::vector<std::string> word_choices = {};
  NameKind word_names = NameKind::kNone;
};

// What CommandSpec::group may be, in the order of the help.
inline constexpr const char* kCommandGroups[] = {"Jobs", "Workers", "Service", "Other"};

const std::vector<FlagSpec>& GlobalFlags();
const std::vector<CommandSpec>& Commands();
// Null where there is none of that name.
const CommandSpec* FindCommand(const std::string& name);
std::vector<std::string> CommandNames();

}  // namespace lasp::client
