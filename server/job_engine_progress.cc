// Liveness is not progress: generations that hang, ranks that are slow, steps that went wrong.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "server/event_text.h"
#include "server/job_engine.h"
#include "server/stall_verdict.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

// Of a rank's own limit: what is left is for the telling, so that a hang is noticed within it.
constexpr double kPartOfLimit = 0.8;
// A rank that says nothing for so long is stopped, whatever it is at.
constexpr absl::Duration kSilenceLimit = absl::Seconds(16);
// A rank that computes so many times as long as the others is a straggler; and by so much at least.
constexpr double kSlow = 4.0 / 3;
constexpr double kSlowSeconds = 0.01;
constexpr absl::Duration kCheckInterval = absl::Seconds(1);
constexpr absl::Duration kBadStepInterval = absl::Seconds(10);

}  // namespace

void JobEngine::TakeProgress(JobRecord* job, int rank, const lasp::v1::RankProgress& progress) {
  RankRecord& record = job->run->ranks[static_cast<size_t>(rank)];
  record.last_idle = absl::ZeroDuration();
  record.last_silence = absl::ZeroDuration();
  if (record.progress.has_value()) {
    record.last_idle = FromProtoDuration(record.progress->idle());
    record.last_silence = FromProtoDuration(record.progress->silence());
  }
  record.progress = progress;
  // A large checkpoint takes its time to restore: as long as it comes on, nobody is late.
  if (job->state() == Job::STATE_STARTING && job->run->peers_sent && !job->run->stopping() &&
      progress.has_limit() &&
      FromProtoDuration(progress.idle()) < options_.readiness_deadline / 4) {
    job->run->deadline = parts_.clock->Monotonic() + options_.readiness_deadline;
  }
}

void JobEngine::CheckProgress(JobRecord* job) {
  const absl::Duration now = parts_.clock->Monotonic();
  if (job->run == nullptr || now - job->run->last_progress_check < kCheckInterval) {
    return;
  }
  job->run->last_progress_check = now;
  CheckStragglers(job);
  CheckStalled(job);
}

void JobEngine::CheckStalled(JobRecord* job) {
  GenerationRun* const run = job->run.get();
  if (run == nullptr || run->dump || (run->stopping() && !run->stop_gently)) {
    return;
  }
  bool silent = false;
  bool all_idle = true;
  bool over = false;
  for (const RankRecord& rank : run->ranks) {
    if (rank.phase == Phase::kExited || !rank.progress.has_value()) {
      // Others' exits have their own deadlines.
      all_idle = false;
      continue;
    }
    const absl::Duration idle = FromProtoDuration(rank.progress->idle());
    const absl::Duration silence = FromProtoDuration(rank.progress->silence());
    // Twice in a row, so that a host that was paused as a whole is not taken for one that hangs.
    silent = silent || (silence >= kSilenceLimit && rank.last_silence >= kSilenceLimit / 2);
    const absl::Duration limit = rank.progress->has_limit()
                                     ? kPartOfLimit * FromProtoDuration(rank.progress->limit())
                                     : absl::InfiniteDuration();
    // Heartbeats of other agents are up to one interval older.
    all_idle = all_idle && idle >= limit - options_.heartbeat_interval;
    over = over || (idle >= limit && rank.last_idle >= limit / 2);
  }
  if (!silent && !(all_idle && over)) {
    return;
  }
  std::vector<StalledRank> ranks;
  ranks.reserve(run->ranks.size());
  for (const RankRecord& rank : run->ranks) {
    ranks.push_back({.worker_id = rank.worker_id,
                     .progress = rank.phase == Phase::kExited || !rank.progress.has_value()
                                     ? lasp::v1::RankProgress()
                                     : *rank.progress});
  }
  const StallVerdict verdict = JudgeStall(ranks);
  run->dump = true;
  run->culprits.insert(verdict.culprits.begin(), verdict.culprits.end());
  GenerationFailure failure{.reason = reason::kRankStalled,
                            .message = absl::StrCat("the job hangs: ", verdict.why,
                                                    "; the logs of the ranks say where they were"),
                            .status = {},
                            .actor = "coordinator"};
  if (run->stopping()) {
    run->symptom = std::move(failure);
    StopRanks(job, /*gently=*/false, run->stop_reason);
    return;
  }
  if (verdict.certain) {
    for (const int culprit : verdict.culprits) {
      AddFailure(run->ranks[static_cast<size_t>(culprit)].worker_id, failure);
    }
  }
  FailGeneration(job, failure);
}

void JobEngine::CheckStragglers(JobRecord* job) {
  GenerationRun* const run = job->run.get();
  if (run == nullptr || run->stopping() || run->ranks.size() < 2) {
    return;
  }
  std::vector<double> busy;
  busy.reserve(run->ranks.size());
  for (const RankRecord& rank : run->ranks) {
    if (!rank.progress.has_value() || rank.progress->busy_step_seconds() <= 0) {
      return;
    }
    busy.push_back(rank.progress->busy_step_seconds());
  }
  std::vector<double> sorted = busy;
  // Of two the faster one.
  const auto middle = sorted.begin() + (std::ssize(sorted) - 1) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  const double median = *middle;
  for (size_t rank = 0; rank < busy.size(); ++rank) {
    const bool slow = busy[rank] > kSlow * median && busy[rank] > median + kSlowSeconds;
    const int number = static_cast<int>(rank);
    if (!slow) {
      run->slow_ranks.erase(number);
    } else if (run->slow_ranks.insert(number).second) {
      AddJobEvent(*job, run->generation, event_reason::kStraggler,
                  absl::StrFormat("rank %d on workers/%s computes for %.3f s of a step, the others "
                                  "for %.3f s, and wait for it",
                                  number, run->ranks[rank].worker_id, busy[rank], median),
                  lasp::v1::Event::SEVERITY_WARNING);
    }
  }
}

void JobEngine::TellBadStep(JobRecord* job, const lasp::v1::StepMetrics& step) {
  const absl::Duration now = parts_.clock->Monotonic();
  if (now - job->last_bad_step < kBadStepInterval) {
    return;
  }
  job->last_bad_step = now;
  AddJobEvent(
      *job, step.generation(), step.outlier() ? reason::kOutlierStep : reason::kNonFiniteStep,
      absl::StrCat(step.outlier() ? "the loss of step " : "the loss or the gradient of step ",
                   step.step(), step.outlier() ? " is an outlier: " : " is not finite: ", "loss ",
                   step.loss(), ", gradient norm ", step.gradient_norm(),
                   step.skipped() ? "; it updated nothing" : ""),
      lasp::v1::Event::SEVERITY_WARNING);
}

}  // namespace lasp::server
