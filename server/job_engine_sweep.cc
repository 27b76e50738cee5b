// What happens by itself as time passes.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/audit_record.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

constexpr absl::Duration kTickInterval = absl::Seconds(1);
// Jobs removed by retention in one pass.
constexpr int kMaxRetired = 200;
// A worker that has been lost for this long is forgotten.
constexpr absl::Duration kForgetLostWorker = absl::Hours(24);
// One that an operator drained must not take ranks when it is back from a long repair.
constexpr absl::Duration kForgetDrainedWorker = absl::Hours(24 * 30);

}  // namespace

void JobEngine::Sweep() {
  const absl::Duration now = parts_.clock->Monotonic();
  SweepLeases();
  std::vector<JobRecord*> runs;
  runs.reserve(running_.size());
  for (const auto& [id, job] : running_) {
    runs.push_back(job);
  }
  for (JobRecord* job : runs) {
    if (job->run != nullptr) {
      SweepRun(job, now);
    }
  }
  SweepTimeLimits(now);
  // Backoff may have ended.
  schedule_due_ = schedule_due_ || !recovering_.cpu.empty() || !recovering_.gpu.empty();
  PublishProgress(now);
  ExplainQueues();
  if (now - last_tick_ >= kTickInterval) {
    last_tick_ = now;
    parts_.watches->Tick();
    RecordRefusals();
    SweepCheckpoints(now);
    SweepRemovals(now);
  }
  if (now - last_retention_ >= options_.retention_interval) {
    // When there is more to delete, the next sweep goes on with it.
    last_retention_ = RetireFinished() ? -absl::InfiniteDuration() : now;
    CompactDeletions();
    ForgetLostWorkers();
    SweepQuarantine();
    unit_.mutations.emplace_back(TrimAudit{.before = parts_.clock->Now() - options_.retain_audit,
                                           .max_records = options_.max_audit_records});
    parts_.log_remover->Trim();
    if (requests_.Expire(parts_.clock->Now())) {
      unit_.mutations.emplace_back(ExpireRequests{.now = parts_.clock->Now()});
    }
  }
}

void JobEngine::RecordRefusals(bool all) {
  for (lasp::v1::AuditRecord& record : parts_.refusals->Take(all)) {
    Record(std::move(record));
  }
}

void JobEngine::Postpone(absl::Duration delay) {
  for (const auto& [id, job] : running_) {
    if (job->run == nullptr) {
      continue;
    }
    job->run->deadline += delay;
    job->run->symptom_deadline += delay;
    for (RankRecord& rank : job->run->ranks) {
      rank.missing_deadline += delay;
    }
  }
}

void JobEngine::SweepLeases() {
  for (const std::string& worker_id : parts_.leases->Expired()) {
    // A stream that has just begun may have renewed it.
    if (!parts_.leases->RevokeExpired(worker_id)) {
      continue;
    }
    WorkerRecord* worker = workers_.Find(worker_id);
    if (worker == nullptr || worker->lost()) {
      continue;
    }
    parts_.observer->OnLeaseExpired();
    LoseWorker(worker, reason::kAgentLost,
               absl::StrCat("not heard of for ", absl::FormatDuration(options_.lease_duration)));
  }
  if (restored_until_ <= parts_.clock->Monotonic()) {
    restored_until_ = absl::InfiniteDuration();
    for (const auto& [id, worker] : workers_.workers()) {
      if (worker->lost() && worker->expected_slots != PerKind<int>()) {
        worker->expected_slots = {};
        schedule_due_ = true;
        PublishWorker(worker.get());
      }
    }
  }
}

void JobEngine::PublishProgress(absl::Duration now) {
  std::vector<JobRecord*> due;
  for (JobRecord* job : unpublished_) {
    if (now - job->last_publication >= options_.progress_interval) {
      due.push_back(job);
    }
  }
  for (JobRecord* job : due) {
    Edit(job, /*stored=*/false, [](lasp::v1::TrainingJob*) {});
  }
}

bool JobEngine::RetireFinished() {
  const int64_t limit = absl::ToUnixMicros(parts_.clock->Now() - options_.retain_finished);
  const auto due = [this, limit] {
    return !finished_.empty() && finished_.begin()->first <= limit;
  };
  for (int i = 0; i < kMaxRetired && due(); ++i) {
    JobRecord* job = jobs_by_uid_.at(finished_.begin()->second).get();
    if (job->checkpoints.NewestCommitted() != nullptr) {
      // What was trained is not thrown away by itself: it stays until somebody deletes it.
      finished_.erase(finished_.begin());
      continue;
    }
    Audit({.principal = "coordinator", .role = ""}, audit::kRetention, *job);
    RemoveJob(job, "coordinator");
  }
  return due();
}

void JobEngine::CompactDeletions() {
  const int64_t revision =
      parts_.jobs->CompactionPoint(static_cast<size_t>(options_.max_tombstones));
  if (revision > 0) {
    unit_.mutations.emplace_back(CompactTombstones{.revision = revision});
    parts_.jobs->Compact(revision);
  }
}

void JobEngine::ForgetLostWorkers() {
  const absl::Time now = parts_.clock->Now();
  std::vector<std::string> forgotten;
  for (const auto& [id, worker] : workers_.workers()) {
    const absl::Duration patience =
        worker->drain_requested ? kForgetDrainedWorker : kForgetLostWorker;
    if (worker->lost() && worker->lost_time < now - patience) {
      forgotten.push_back(id);
    }
  }
  for (const std::string& id : forgotten) {
    WorkerRecord* const worker = workers_.Find(id);
    AddWorkerEvent(worker, lasp::v1::Worker::STATE_UNSPECIFIED, event_reason::kForgotten,
                   "lost for so long that it is no longer expected", "coordinator");
    changed_workers_.erase(worker);
    workers_.Remove(id);
    unit_.mutations.emplace_back(DeleteWorker{.worker_id = id});
    unit_.mutations.emplace_back(
        DeleteWorkerFailures{.worker_id = id, .before = absl::InfiniteFuture()});
    unit_.published_workers.emplace_back(id, nullptr);
  }
}

}  // namespace lasp::server
