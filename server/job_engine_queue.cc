// The queue: who starts next, and what those who wait are told.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/job_engine.h"
#include "server/scheduler.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

// Jobs shown to the scheduler at first, for the first one is often the last that can be placed, and
// at most at a time.
constexpr size_t kScheduleChunk = 16;
constexpr size_t kMaxScheduleChunk = 256;
constexpr absl::Duration kExplanationInterval = absl::Seconds(1);

}  // namespace

void JobEngine::Enqueue(JobRecord* job) {
  job->queued_at = parts_.clock->Monotonic();
  // In front of others only where it is older than they are.
  const bool last = queue_.empty() || queue_.rbegin()->first < job->id();
  queue_[job->id()] = job;
  if (!queue_blocked_ || !last) {
    schedule_due_ = true;
  }
  explain_due_ = explain_due_ ||
                 queue_.size() <= static_cast<size_t>(options_.explained_queue_length) || !last;
}

void JobEngine::RunScheduler() {
  if (!schedule_due_) {
    return;
  }
  schedule_due_ = false;
  explain_due_ = true;
  const absl::Duration start = parts_.clock->Monotonic();
  capacity_ = workers_.Capacity();
  SlotIndex& slots = workers_.Slots();
  queue_blocked_ = false;

  // Recovering jobs first. One that may not start yet is placed too, which keeps its slots for it.
  std::vector<JobRecord*> candidates;
  candidates.reserve(recovering_.size());
  for (const auto& [id, job] : recovering_) {
    candidates.push_back(job);
  }
  auto next = queue_.begin();
  int placed = 0;
  size_t chunk = kScheduleChunk;
  std::vector<WorkerRecord*> reserved;
  while (!queue_blocked_) {
    for (; next != queue_.end() && candidates.size() < chunk; ++next) {
      if (next->second->world_size <= capacity_) {
        candidates.push_back(next->second);
      }
    }
    if (candidates.empty()) {
      break;
    }
    std::vector<SchedulerJob> jobs;
    for (const JobRecord* job : candidates) {
      SchedulerJob& entry = jobs.emplace_back();
      entry.world_size = job->world_size;
      entry.group_size = job->group_size;
      for (const std::string& id : job->avoided_workers) {
        if (const WorkerRecord* worker = workers_.Find(id); worker != nullptr) {
          entry.avoid.push_back(worker->number());
        }
      }
    }
    const Schedule schedule = MakeSchedule(&slots, jobs, capacity_);
    for (const Placement& placement : schedule.placements) {
      JobRecord* job = candidates[placement.job];
      std::vector<WorkerRecord*> ranks;
      ranks.reserve(placement.workers.size());
      for (const int worker : placement.workers) {
        ranks.push_back(workers_.ByNumber(worker));
      }
      if (job->state() == Job::STATE_RECOVERING && (job->run != nullptr || job->retry_at > start)) {
        reserved.insert(reserved.end(), ranks.begin(), ranks.end());
        continue;
      }
      StartGeneration(job, ranks);
      ++placed;
    }
    queue_blocked_ = schedule.blocked.has_value();
    candidates.clear();
    chunk = std::min(4 * chunk, kMaxScheduleChunk);
  }
  // For the next pass these slots are free again.
  for (WorkerRecord* worker : reserved) {
    workers_.Touch(worker);
  }
  free_slots_ = workers_.FreeSlots();
  // What it has changed itself needs no other pass.
  schedule_due_ = false;
  parts_.observer->OnSchedulerPass(parts_.clock->Monotonic() - start, placed);
}

std::pair<std::string, std::string> JobEngine::Explain(const JobRecord& job, size_t before,
                                                       int free, int capacity) const {
  const std::string needs =
      absl::StrCat("needs ", job.world_size, job.world_size == 1 ? " slot" : " slots");
  if (capacity == 0) {
    return {reason::kNoWorkers, absl::StrCat(needs, ", no worker is ready")};
  }
  if (job.world_size > capacity) {
    return {reason::kNoCapacity, absl::StrCat(needs, ", the cluster has ", capacity)};
  }
  const std::string room = absl::StrCat(needs, ", ", free, " of ", capacity, " free");
  if (before == 0) {
    return {reason::kWaitingForSlots, room};
  }
  return {reason::kWaitingForTurn,
          absl::StrCat(room, ", ", before, before == 1 ? " job" : " jobs", " before it")};
}

void JobEngine::ExplainQueue() {
  const absl::Duration now = parts_.clock->Monotonic();
  if (!explain_due_ || now - last_explanation_ < kExplanationInterval) {
    return;
  }
  explain_due_ = false;
  last_explanation_ = now;
  const auto update = [this](JobRecord* job, const std::string& why, const std::string& message) {
    if (job->view->job.reason() != why || job->view->job.message() != message) {
      Edit(job, /*stored=*/false, [&](Job* changed) {
        changed->set_reason(why);
        changed->set_message(message);
      });
    }
  };
  size_t before = 0;
  for (const auto& [id, job] : recovering_) {
    if (job->run == nullptr && job->retry_at <= now) {
      const auto [why, message] = Explain(*job, before, free_slots_, capacity_);
      update(job, why, absl::StrCat(message, "; after: ", job->last_failure));
      ++before;
    }
  }
  int explained = 0;
  for (const auto& [id, job] : queue_) {
    if (++explained > options_.explained_queue_length) {
      break;
    }
    const auto [why, message] = Explain(*job, before, free_slots_, capacity_);
    update(job, why, message);
    // A job that the cluster has no room for holds nobody back.
    before += job->world_size <= capacity_ ? 1 : 0;
  }
}

}  // namespace lasp::server
