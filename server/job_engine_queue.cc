// The queue: who starts next, and what those who wait are told.
#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/resource_name.h"
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

// What a job computes on, or may.
lasp::v1::TrainingSpec::Device DeviceOf(const JobRecord& job) {
  const lasp::v1::TrainingSpec::Device decided = job.view->job.device();
  if (decided != lasp::v1::TrainingSpec::DEVICE_UNSPECIFIED) {
    return decided;
  }
  // A generation that an earlier release started was on CPUs, the only slots there were.
  return job.generation() > 0 ? lasp::v1::TrainingSpec::DEVICE_CPU : job.device;
}

}  // namespace

SlotKind JobEngine::KindFor(const JobRecord& job) const {
  switch (DeviceOf(job)) {
    case lasp::v1::TrainingSpec::DEVICE_CPU:
      return lasp::v1::Slot::KIND_CPU;
    case lasp::v1::TrainingSpec::DEVICE_GPU:
      return lasp::v1::Slot::KIND_GPU;
    default:
      return job.world_size <= capacity_.gpu ? lasp::v1::Slot::KIND_GPU : lasp::v1::Slot::KIND_CPU;
  }
}

void JobEngine::Enqueue(JobRecord* job) {
  job->queued_at = parts_.clock->Monotonic();
  job->kind = KindFor(*job);
  auto& queue = queues_[job->kind];
  // In front of others only where it is older than they are.
  const bool last = queue.empty() || queue.rbegin()->first < job->id();
  queue[job->id()] = job;
  if (!queue_blocked_[job->kind] || !last) {
    schedule_due_ = true;
  }
  explain_due_ =
      explain_due_ || queue.size() <= static_cast<size_t>(options_.explained_queue_length) || !last;
}

void JobEngine::CountQueued(const JobRecord& job, JobState from) {
  const int change =
      (job.state() == Job::STATE_QUEUED ? 1 : 0) - (from == Job::STATE_QUEUED ? 1 : 0);
  const absl::StatusOr<JobName> name = ParseJobName(job.name());
  if (change != 0 && name.ok()) {
    queued_by_project_[name->project] += change;
  }
}

absl::Status JobEngine::CheckQueueRoom(const std::string& project) const {
  const auto found = queued_by_project_.find(project);
  if (found == queued_by_project_.end() || found->second < options_.max_queued_jobs) {
    return absl::OkStatus();
  }
  parts_.observer->OnQueueFull();
  return ErrorWithReason(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("projects/", project, " has ", found->second,
                   " jobs in the queue, all that the coordinator's --max_queued_jobs allows: wait "
                   "until some have started, or cancel some"),
      "TOO_MANY_QUEUED_JOBS");
}

void JobEngine::SortQueues() {
  std::vector<JobRecord*> moved;
  for (const SlotKind kind : kSlotKinds) {
    for (const auto& [id, job] : queues_[kind]) {
      if (KindFor(*job) != kind) {
        moved.push_back(job);
      }
    }
  }
  for (JobRecord* job : moved) {
    queues_[job->kind].erase(job->id());
    job->kind = KindFor(*job);
    queues_[job->kind][job->id()] = job;
  }
}

void JobEngine::RunScheduler() {
  if (!schedule_due_) {
    return;
  }
  schedule_due_ = false;
  explain_due_ = true;
  const absl::Duration start = parts_.clock->Monotonic();
  const int gpus = std::exchange(capacity_, workers_.Capacity()).gpu;
  if (gpus != capacity_.gpu) {
    SortQueues();
  }
  int placed = 0;
  bool again = false;
  for (const SlotKind kind : kSlotKinds) {
    const SchedulePass pass = ScheduleKind(kind);
    placed += pass.placed;
    again = again || pass.again;
  }
  for (const SlotKind kind : kSlotKinds) {
    free_slots_[kind] = workers_.Slots(kind).total();
  }
  // What it has changed itself needs no other pass, but for slots that nobody took in the end.
  schedule_due_ = again;
  parts_.observer->OnSchedulerPass(parts_.clock->Monotonic() - start, placed);
}

std::vector<int> JobEngine::WorkersThatDoNotSpeak(int protocol) const {
  std::vector<int> numbers;
  for (const auto& [id, worker] : workers_.workers()) {
    if (!worker->lost() && !worker->speaks(protocol)) {
      numbers.push_back(worker->number());
    }
  }
  return numbers;
}

JobEngine::SchedulePass JobEngine::ScheduleKind(SlotKind kind) {
  const absl::Duration start = parts_.clock->Monotonic();
  const int capacity = capacity_[kind];
  SlotIndex& slots = workers_.Slots(kind);
  bool& blocked = queue_blocked_[kind];
  blocked = false;

  // Recovering jobs first. One that may not start yet is placed too, which keeps its slots for it.
  std::vector<JobRecord*> candidates;
  candidates.reserve(recovering_[kind].size());
  for (const auto& [id, job] : recovering_[kind]) {
    candidates.push_back(job);
  }
  const auto& queue = queues_[kind];
  auto next = queue.begin();
  int placed = 0;
  size_t chunk = kScheduleChunk;
  std::vector<WorkerRecord*> reserved;
  std::vector<WorkerRecord*> given_back;
  // By version of the protocol: looked for once, and only where a job needs one.
  std::map<int, std::vector<int>> not_speaking;
  const std::vector<int> quarantined = QuarantinedWorkers();
  while (!blocked) {
    for (; next != queue.end() && candidates.size() < chunk; ++next) {
      if (next->second->world_size <= capacity) {
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
      entry.avoid.insert(entry.avoid.end(), quarantined.begin(), quarantined.end());
      if (const int needed = job->needed_protocol(); needed > kWorkerProtocol.oldest) {
        const auto [found, is_new] = not_speaking.try_emplace(needed);
        if (is_new) {
          found->second = WorkersThatDoNotSpeak(needed);
        }
        entry.avoid.insert(entry.avoid.end(), found->second.begin(), found->second.end());
      }
    }
    const Schedule schedule = MakeSchedule(&slots, jobs, capacity);
    for (const Placement& placement : schedule.placements) {
      JobRecord* job = candidates[placement.job];
      std::vector<WorkerRecord*> ranks;
      ranks.reserve(placement.workers.size());
      for (const int worker : placement.workers) {
        ranks.push_back(workers_.ByNumber(worker));
      }
      // A checkpoint that all ranks have written will be committed in a moment: it starts from
      // that.
      // On an agent of an earlier release it would lose its steps, or be another training: it waits
      // until that is upgraded.
      const bool understood =
          std::all_of(ranks.begin(), ranks.end(),
                      [needed = job->needed_protocol()](const WorkerRecord* worker) {
                        return worker->speaks(needed);
                      });
      if (!understood || job->checkpoints.Settling() ||
          (job->state() == Job::STATE_RECOVERING &&
           (job->run != nullptr || job->retry_at > start))) {
        reserved.insert(reserved.end(), ranks.begin(), ranks.end());
        continue;
      }
      if (!job->start_from().empty() && StartOf(*job) == nullptr) {
        FailForGood(job,
                    {.reason = reason::kStartLost,
                     .message = absl::StrCat(job->start_from(),
                                             ", from which the job was to go on, is damaged or "
                                             "gone; submit it from another checkpoint"),
                     .status = {},
                     .actor = "coordinator"});
        given_back.insert(given_back.end(), ranks.begin(), ranks.end());
        continue;
      }
      StartGeneration(job, ranks);
      ++placed;
    }
    blocked = schedule.blocked.has_value();
    candidates.clear();
    chunk = std::min(4 * chunk, kMaxScheduleChunk);
  }
  kept_slots_[kind] = static_cast<int>(reserved.size());
  // For the next pass these slots are free again.
  for (WorkerRecord* worker : reserved) {
    workers_.Touch(worker);
  }
  for (WorkerRecord* worker : given_back) {
    workers_.Touch(worker);
  }
  return {.placed = placed, .again = !given_back.empty()};
}

std::pair<std::string, std::string> JobEngine::Explain(const JobRecord& job, size_t before) const {
  const int capacity = capacity_[job.kind];
  const auto device = DeviceOf(job);
  const bool either =
      device != lasp::v1::TrainingSpec::DEVICE_CPU && device != lasp::v1::TrainingSpec::DEVICE_GPU;
  const auto needs = [&job](absl::string_view kind) {
    return absl::StrCat("needs ", job.world_size, kind, job.world_size == 1 ? " slot" : " slots");
  };
  const std::string needs_kind = needs(absl::StrCat(" ", SlotKindName(job.kind)));
  if (capacity_ == PerKind<int>()) {
    return {reason::kNoWorkers,
            absl::StrCat(either ? needs("") : needs_kind, ", no worker is ready")};
  }
  if (job.world_size > capacity) {
    const std::string message =
        either && capacity_.gpu > 0
            ? absl::StrCat(needs(""), " of one kind, the cluster has ", capacity_.cpu, " CPU and ",
                           capacity_.gpu, " GPU")
            : absl::StrCat(needs_kind, ", the cluster has ", capacity);
    return {reason::kNoCapacity, message};
  }
  const std::string room =
      absl::StrCat(needs_kind, ", ", free_slots_[job.kind], " of ", capacity, " free");
  if (before == 0) {
    return {reason::kWaitingForSlots, room};
  }
  return {reason::kWaitingForTurn,
          absl::StrCat(room, ", ", before, before == 1 ? " job" : " jobs", " before it")};
}

void JobEngine::CountSlots() {
  busy_slots_ = {};
  away_slots_ = {};
  for (const auto& [id, worker] : workers_.workers()) {
    const PerKind<int> known = worker->known_slots();
    for (const SlotKind kind : kSlotKinds) {
      const int busy = worker->slot_count(kind) - worker->free_slots(kind);
      busy_slots_[kind] += busy;
      away_slots_[kind] += worker->schedulable() ? 0 : known[kind] - busy;
    }
  }
}

lasp::v1::SlotWait JobEngine::WaitOf(const JobRecord& job, size_t before) const {
  lasp::v1::SlotWait wait;
  wait.set_device(job.kind == lasp::v1::Slot::KIND_GPU ? lasp::v1::TrainingSpec::DEVICE_GPU
                                                       : lasp::v1::TrainingSpec::DEVICE_CPU);
  wait.set_needed_slots(job.world_size);
  wait.set_free_slots(free_slots_[job.kind]);
  wait.set_kept_slots(kept_slots_[job.kind]);
  wait.set_busy_slots(busy_slots_[job.kind]);
  wait.set_away_slots(away_slots_[job.kind]);
  wait.set_position(static_cast<int>(before) + 1);
  for (const std::string& worker : job.avoided_workers) {
    wait.add_avoided_workers(absl::StrCat("workers/", worker));
  }
  return wait;
}

void JobEngine::TellRestartTime(JobRecord* job, size_t before) {
  const auto restart =
      ToProtoTime(parts_.clock->Now() + (job->retry_at - parts_.clock->Monotonic()));
  // Two clocks never pass quite alike: what is told once stays.
  const auto& told = job->view->job.slot_wait();
  if (!told.has_earliest_start_time() ||
      std::abs(told.earliest_start_time().seconds() - restart.seconds()) > 1) {
    Edit(job, /*stored=*/false, [&](Job* changed) {
      *changed->mutable_slot_wait() = WaitOf(*job, before);
      *changed->mutable_slot_wait()->mutable_earliest_start_time() = restart;
    });
  }
}

void JobEngine::ExplainQueues() {
  const absl::Duration now = parts_.clock->Monotonic();
  if (!explain_due_ || now - last_explanation_ < kExplanationInterval) {
    return;
  }
  explain_due_ = false;
  last_explanation_ = now;
  CountSlots();
  for (const SlotKind kind : kSlotKinds) {
    ExplainQueue(kind);
  }
}

void JobEngine::ExplainQueue(SlotKind kind) {
  const absl::Duration now = parts_.clock->Monotonic();
  size_t before = 0;
  const auto update = [this, &before](JobRecord* job, const std::string& why,
                                      const std::string& message) {
    const lasp::v1::SlotWait wait = WaitOf(*job, before);
    const Job& told = job->view->job;
    if (told.reason() != why || told.message() != message ||
        !google::protobuf::util::MessageDifferencer::Equals(told.slot_wait(), wait)) {
      Edit(job, /*stored=*/false, [&](Job* changed) {
        changed->set_reason(why);
        changed->set_message(message);
        *changed->mutable_slot_wait() = wait;
      });
    }
  };
  for (const auto& [id, job] : recovering_[kind]) {
    if (job->run == nullptr && job->retry_at <= now) {
      const auto [why, message] = Explain(*job, before);
      update(job, why, absl::StrCat(message, "; after: ", job->last_failure));
      ++before;
    } else if (job->run == nullptr) {
      TellRestartTime(job, before);
    }
  }
  int explained = 0;
  for (const auto& [id, job] : queues_[kind]) {
    if (++explained > options_.explained_queue_length) {
      break;
    }
    const auto [why, message] = Explain(*job, before);
    update(job, why, message);
    // A job that the cluster has no room for holds nobody back.
    before += job->world_size <= capacity_[kind] ? 1 : 0;
  }
}

}  // namespace lasp::server
