#include "client/job_view.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/enum_names.h"
#include "client/job_reference.h"
#include "client/number_text.h"
#include "client/time_text.h"
#include "client/utf8.h"
#include "proto/rpc/resource_name.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

constexpr int kBarCells = 16;
// Below this the figures need the room.
constexpr int kMinWidthForBar = 72;

std::string Ranks(const TrainingJob& job) {
  const auto& parallelism = job.spec().parallelism();
  return absl::StrCat(std::max(1, parallelism.sequence_parallel().size()), "x",
                      std::max(1, parallelism.data_parallel().size()));
}

std::string Age(const google::protobuf::Timestamp& time, absl::Time now) {
  return time.seconds() == 0 ? "-" : FormatAge(now - FromProto(time));
}

std::string Bar(int64_t step, int64_t max_steps, bool utf8) {
  const int filled =
      max_steps <= 0
          ? 0
          : static_cast<int>(std::clamp<int64_t>(step * kBarCells / max_steps, 0, kBarCells));
  std::string bar;
  for (int i = 0; i < kBarCells; ++i) {
    bar += i < filled ? (utf8 ? "\xE2\x96\x88" : "#") : (utf8 ? "\xE2\x96\x91" : "-");
  }
  return bar;
}

std::vector<std::string> TrainingParts(const TrainingJob& job) {
  const auto& progress = job.progress();
  std::vector<std::string> parts = {
      absl::StrCat("step ", progress.step(), "/", progress.max_steps(), " ",
                   FormatPercent(progress.step(), progress.max_steps()))};
  if (progress.step() > 0) {
    parts.push_back(absl::StrCat("loss ", FormatLoss(progress.loss())));
    parts.push_back(absl::StrCat(FormatRate(progress.tokens_per_second()), " tok/s"));
  }
  if (progress.has_remaining_duration() && !IsFinal(job.state())) {
    parts.push_back(absl::StrCat("eta ", FormatAge(FromProto(progress.remaining_duration()))));
  }
  if (progress.has_eval_loss()) {
    parts.push_back(absl::StrCat("eval loss ", FormatLoss(progress.eval_loss())));
  }
  if (progress.skipped_step_count() > 0) {
    parts.push_back(absl::StrCat(progress.skipped_step_count(), " skipped"));
  }
  if (job.generation() > 1) {
    parts.push_back(absl::StrCat("generation ", job.generation()));
  }
  return parts;
}

std::vector<std::string> WaitingParts(const TrainingJob& job, absl::Time now) {
  const auto& since = job.update_time().seconds() != 0 ? job.update_time() : job.create_time();
  std::vector<std::string> parts = {
      absl::StrCat(absl::AsciiStrToLower(StateName(job.state())), " ", Age(since, now))};
  if (!job.message().empty()) {
    parts.push_back(Printable(job.message()));
  }
  return parts;
}

}  // namespace

std::string StateName(TrainingJob::State state) {
  return ShortEnumName(*TrainingJob::State_descriptor(), state);
}

Style StateStyle(TrainingJob::State state) {
  switch (state) {
    case TrainingJob::STATE_SUCCEEDED:
      return Style::kGood;
    case TrainingJob::STATE_FAILED:
      return Style::kBad;
    case TrainingJob::STATE_STARTING:
    case TrainingJob::STATE_RUNNING:
    case TrainingJob::STATE_RECOVERING:
      return Style::kBusy;
    default:
      return Style::kPlain;
  }
}

bool IsFinal(TrainingJob::State state) {
  return state == TrainingJob::STATE_SUCCEEDED || state == TrainingJob::STATE_FAILED ||
         state == TrainingJob::STATE_CANCELLED;
}

Table JobTable(const std::vector<TrainingJob>& jobs, const JobColumns& wanted, absl::Time now) {
  std::vector<Column> columns = {{"NAME"},           {"STATE"},     {"STEP", true}, {"LOSS", true},
                                 {"TOKENS/S", true}, {"GEN", true}, {"AGE", true}};
  if (wanted.project) {
    columns.insert(columns.begin(), Column{"PROJECT"});
  }
  if (wanted.wide) {
    for (const char* header : {"SPxDP", "RESTARTS", "ETA", "DISPLAY NAME", "REASON"}) {
      columns.push_back({header});
    }
  }
  Table table(std::move(columns));
  for (const TrainingJob& job : jobs) {
    const auto& progress = job.progress();
    const bool trained = progress.step() > 0;
    const int64_t max_steps =
        progress.max_steps() > 0 ? progress.max_steps() : job.spec().max_steps();
    std::vector<Cell> row = {ShortName(job.name()),
                             {StateName(job.state()), StateStyle(job.state())},
                             absl::StrCat(progress.step(), "/", max_steps),
                             trained ? FormatLoss(progress.loss()) : "-",
                             trained ? FormatRate(progress.tokens_per_second()) : "-",
                             absl::StrCat(job.generation()),
                             Age(job.create_time(), now)};
    if (wanted.project) {
      const auto name = ParseJobName(job.name());
      row.insert(row.begin(), Cell(name.ok() ? name->project : "-"));
    }
    if (wanted.wide) {
      const bool running = progress.has_remaining_duration() && !IsFinal(job.state());
      row.emplace_back(Ranks(job));
      row.emplace_back(absl::StrCat(job.restart_count()));
      row.emplace_back(running ? FormatAge(FromProto(progress.remaining_duration())) : "-");
      row.emplace_back(job.display_name().empty() ? "-" : job.display_name());
      row.emplace_back(job.reason().empty() ? "-" : job.reason());
    }
    table.AddRow(std::move(row));
  }
  return table;
}

std::string ProgressLine(const TrainingJob& job, absl::Time now, const Terminal& terminal) {
  const bool training = job.state() == TrainingJob::STATE_RUNNING || job.progress().step() > 0;
  std::vector<std::string> parts = training ? TrainingParts(job) : WaitingParts(job, now);
  if (training && job.state() != TrainingJob::STATE_RUNNING) {
    parts.insert(parts.begin(), absl::AsciiStrToLower(StateName(job.state())));
  }
  std::string line;
  if (training && terminal.width >= kMinWidthForBar) {
    line = absl::StrCat(Bar(job.progress().step(), job.progress().max_steps(), terminal.utf8), " ");
  }
  // The last column stays free: a full line would wrap on some terminals.
  const int room = terminal.width - 1;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string longer = absl::StrCat(line, i == 0 ? "" : " | ", parts[i]);
    if (terminal.width > 0 && i > 0 && DisplayWidth(longer) > room) {
      // A message is worth a cut; a figure is not.
      if (!training) {
        return TruncateToWidth(longer, room, terminal.utf8);
      }
      break;
    }
    line = longer;
  }
  return terminal.width > 0 ? TruncateToWidth(line, room, terminal.utf8) : line;
}

}  // namespace lasp::client
