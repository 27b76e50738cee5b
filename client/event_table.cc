#include "client/event_table.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/job_reference.h"
#include "client/output_table.h"
#include "client/time_text.h"

namespace lasp::client {
namespace {

using lasp::v1::Event;

// job/NAME or worker/NAME.
std::string Subject(const std::string& name) {
  return absl::StrCat(absl::StartsWith(name, "workers/") ? "worker/" : "job/", ShortName(name));
}

}  // namespace

std::string EventRow(const Event& event, const Terminal& terminal, bool with_header) {
  const bool warning = event.severity() == Event::SEVERITY_WARNING;
  Table table({{"TIME", false, 15},
               {"SUBJECT", false, 20},
               {"STATE", false, 10},
               {"GEN", true, 3},
               {"REASON", false, 16},
               {"BY", false, 11},
               {"MESSAGE"}});
  table.AddRow(
      {absl::FormatTime("%b %e %H:%M:%S", FromProto(event.time()), absl::LocalTimeZone()),
       Subject(event.subject()),
       {event.to_state().empty() ? "-" : event.to_state(), warning ? Style::kBad : Style::kPlain},
       event.generation() > 0 ? absl::StrCat(event.generation()) : "-",
       {event.reason(), warning ? Style::kBad : Style::kPlain},
       event.actor(),
       event.message()});
  return table.Render(terminal, with_header);
}

}  // namespace lasp::client
