#include "client/event_flags.h"

#include "client/flag_values.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

constexpr int kMaxEvents = 1'000'000;

absl::Status Ok() { return absl::OkStatus(); }

}  // namespace

CommandSpec EventsCommand() {
  return {"events",
          "Jobs",
          "[NAME | worker NAME]",
          "Show what happened to jobs and workers",
          "The latest changes of state, the oldest of them first: of one job all there\n"
          "were, of everything together as many as the coordinator holds. --watch goes on\n"
          "with new ones, through restarts of the coordinator too; a job's ends with it.",
          {"lasp events", "lasp events quickstart --watch", "lasp events worker gpu-host-3",
           "lasp events --all-projects --warnings -o json"},
          {{"--watch", 'w', "", "Go on with new events",
            [](const std::string&, Line* line) {
              line->events.watch = true;
              return Ok();
            }},
           {"--limit", 'n', "N", "At most so many of those there are (default 50)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--limit", value, 1, kMaxEvents, &line->events.limit);
            }},
           {"--warnings", '\0', "", "Only what was lost: generations, jobs, workers",
            [](const std::string&, Line* line) {
              line->events.warnings = true;
              return Ok();
            }},
           {"--all-projects", 'A', "", "Of every project", [](const std::string&, Line* line) {
              line->events.all_projects = true;
              return Ok();
            }}}};
}

}  // namespace lasp::client
