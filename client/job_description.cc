#include "client/job_description.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/description.h"
#include "client/document.h"
#include "client/enum_names.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/job_wait.h"
#include "client/number_text.h"
#include "client/output_table.h"
#include "client/time_text.h"
#include "client/utf8.h"
#include "proto/rpc/error_details.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

std::string TimeAndAge(const google::protobuf::Timestamp& time, absl::Time now) {
  if (time.seconds() == 0) {
    return "";
  }
  return absl::StrCat(
      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", FromProto(time), absl::UTCTimeZone()), " (",
      FormatAge(now - FromProto(time)), " ago)");
}

void DescribeState(const TrainingJob& job, absl::Time now, Description* description) {
  description->Line("State", StateName(job.state()), StateStyle(job.state()));
  description->Line("Reason", job.reason());
  const bool waits = job.state() == TrainingJob::STATE_QUEUED;
  description->Line(waits ? "Waits because" : "Message", job.message());
  description->Line("Generation", absl::StrCat(job.generation()));
  if (job.device() != lasp::v1::TrainingSpec::DEVICE_UNSPECIFIED) {
    description->Line("Device",
                      ShortEnumName(*lasp::v1::TrainingSpec::Device_descriptor(), job.device()));
  }
  if (job.restart_count() > 0 || job.spec().recovery().has_max_restarts()) {
    description->Line("Restarts", absl::StrCat(job.restart_count(), " of at most ",
                                               job.spec().recovery().max_restarts()));
  }
  if (job.failures_without_checkpoint() > 0) {
    description->Line("Failures",
                      absl::StrCat(job.failures_without_checkpoint(),
                                   " in a row without a newer checkpoint, of at most ",
                                   job.spec().recovery().max_failures_without_checkpoint()));
  }
  if (job.spec().has_max_queue_duration()) {
    description->Line("Waits at most", FormatDuration(job.spec().max_queue_duration()));
  }
  if (job.spec().has_max_run_duration()) {
    description->Line("Runs at most", FormatDuration(job.spec().max_run_duration()));
  }
  if (job.checkpoint_step() > 0) {
    description->Line("Checkpoint", absl::StrCat("step ", job.checkpoint_step(),
                                                 "; the next generation goes on from it"));
  }
  if (job.progress().step() > 0) {
    description->Line("Progress", ProgressLine(job, now, Terminal{}));
    description->Line("First loss", FormatLoss(job.progress().first_loss()));
    description->Line("Tokens", FormatRate(static_cast<double>(job.progress().token_count())));
  }
}

void DescribeError(const TrainingJob& job, Description* description) {
  if (!job.has_error() || job.error().code() == 0) {
    return;
  }
  const absl::Status status = StatusFromProto(job.error());
  std::string text =
      absl::StrCat(absl::StatusCodeToString(status.code()), ": ", Printable(status.message()));
  for (const FieldViolation& violation : FieldViolations(status)) {
    absl::StrAppend(&text, "\n", Printable(violation.field), ": ",
                    Printable(violation.description));
  }
  for (const auto& detail : job.error().details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) {
      absl::StrAppend(&text, "\nreason ", Printable(info.reason()));
      const std::map<std::string, std::string> sorted(info.metadata().begin(),
                                                      info.metadata().end());
      for (const auto& [key, value] : sorted) {
        absl::StrAppend(&text, ", ", Printable(key), " ", Printable(value));
      }
    }
  }
  description->Block("Error", text);
}

void DescribePlacements(const TrainingJob& job, Description* description) {
  if (job.placements().empty()) {
    return;
  }
  Table table({{"RANK", true}, {"WORKER"}, {"SLOT", true}});
  for (const auto& placement : job.placements()) {
    table.AddRow({absl::StrCat(placement.rank()), ShortName(placement.worker()),
                  absl::StrCat(placement.slot())});
  }
  description->TableBlock("Ranks", table);
}

void DescribeTransitions(const TrainingJob& job, absl::Time now, Description* description) {
  if (job.transitions().empty()) {
    return;
  }
  Table table({{"AGE", true}, {"STATE"}, {"GEN", true}, {"REASON"}, {"BY"}, {"MESSAGE"}});
  for (const auto& transition : job.transitions()) {
    table.AddRow({FormatAge(now - FromProto(transition.time())),
                  {StateName(transition.to_state()), StateStyle(transition.to_state())},
                  absl::StrCat(transition.generation()),
                  transition.reason(),
                  transition.actor(),
                  transition.message()});
  }
  description->TableBlock("History", table);
}

}  // namespace

std::string DescribeJob(const TrainingJob& job, absl::Time now, const Terminal& terminal) {
  Description description(terminal);
  description.Line("Name", job.name(), Style::kBold);
  description.Line("Display name", job.display_name());
  const std::map<std::string, std::string> labels(job.labels().begin(), job.labels().end());
  description.Line("Labels", absl::StrJoin(labels, ", ", absl::PairFormatter("=")));
  DescribeState(job, now, &description);
  description.Line("Created", TimeAndAge(job.create_time(), now));
  description.Line("Started", TimeAndAge(job.start_time(), now));
  description.Line("Ended", TimeAndAge(job.end_time(), now));
  if (const std::string wait = DescribeWait(job, now); !wait.empty()) {
    description.Block("Waits for", wait);
  }
  DescribeError(job, &description);
  DescribePlacements(job, &description);
  DescribeTransitions(job, now, &description);
  description.Block("Spec", YamlText(ToDocument(job.spec())));
  return description.Take();
}

}  // namespace lasp::client
