// An agent's stream begins, breaks, begins again, ends for good: which of its ranks are still
// there.
#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/protocol_range.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

SlotHolder HolderOf(const lasp::v1::Fence& fence) {
  return {.job_name = fence.training_job(),
          .uid = fence.uid(),
          .generation = fence.generation(),
          .rank = fence.rank()};
}

}  // namespace

void JobEngine::Connected(const AgentSessionPtr& session, const lasp::v1::Hello& hello,
                          const std::vector<int64_t>& log_ends) {
  WorkerRecord* worker = workers_.FindOrAdd(hello.worker_id());
  if (worker->session != nullptr) {
    worker->session->registered = false;
    worker->session->Close(
        absl::AbortedError(absl::StrCat("workers/", worker->id(),
                                        " has connected again; each agent needs a "
                                        "--worker_id of its own")));
  }
  const bool same_incarnation = worker->incarnation == hello.incarnation();
  const bool had_left = worker->left();
  const PerKind<int> stored_slots = worker->known_slots();
  session->registered = true;
  worker->Register(hello, session, parts_.leases->Grant(worker->id()), parts_.clock->Now());
  if (!same_incarnation || had_left || stored_slots != worker->known_slots()) {
    StoreWorker(*worker);
  }
  TellConnected(worker, same_incarnation);

  lasp::v1::ConnectResponse response;
  response.set_acked_sequence(session->acked_sequence);
  auto* welcome = response.mutable_welcome();
  welcome->set_session_id(absl::StrCat(hello.incarnation(), "/", NextRevision()));
  *welcome->mutable_heartbeat_interval() = ToProtoDuration(options_.heartbeat_interval);
  *welcome->mutable_lease_duration() = ToProtoDuration(options_.lease_duration);
  welcome->set_protocol_version(
      CommonVersion(AgentProtocol(hello), kWorkerProtocol).value_or(kWorkerProtocol.oldest));
  Send(session, std::move(response));

  AdoptRanks(session, hello, log_ends, worker, same_incarnation);
  if (worker->draining()) {
    StopForDrain(worker);
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

void JobEngine::AdoptRanks(const AgentSessionPtr& session, const lasp::v1::Hello& hello,
                           const std::vector<int64_t>& log_ends, WorkerRecord* worker,
                           bool same_incarnation) {
  std::set<std::tuple<std::string, int64_t, int>> listed;
  for (int i = 0; i < hello.ranks_size(); ++i) {
    const lasp::v1::RankStatus& status = hello.ranks(i);
    const lasp::v1::Fence& fence = status.fence();
    listed.emplace(fence.uid(), fence.generation(), fence.rank());
    worker->Occupy(status.slot(), HolderOf(fence));
    if (JobRecord* job = FencedJob(*session, fence); job != nullptr) {
      RefreshRank(session, job, &job->run->ranks[static_cast<size_t>(fence.rank())], status,
                  log_ends[static_cast<size_t>(i)]);
    } else {
      StopStale(session, fence);
    }
  }
  // Ranks that should be there. With a new process of the agent they are gone for certain;
  // otherwise their exits may be among the reports that it sends again now.
  const absl::Duration missing = parts_.clock->Monotonic() + options_.missing_rank_grace;
  RankList gone;
  std::set<std::tuple<std::string, int64_t, int>> awaited;
  const auto here = ranks_on_worker_.find(worker->id());
  for (const auto& [job, rank] : here == ranks_on_worker_.end() ? RankList() : here->second) {
    RankRecord& record = job->run->ranks[static_cast<size_t>(rank)];
    const auto key = std::make_tuple(job->uid(), job->run->generation, rank);
    if (record.phase == Phase::kExited || listed.contains(key)) {
      continue;
    }
    // What a rank would have to take up, and whether its peers meet on their GPUs, is forgotten
    // with an earlier run of this process.
    const bool assignable = (!job->run->rebuilt || job->run->rebuild != nullptr) &&
                            (job->kind != lasp::v1::Slot::KIND_GPU || job->run->peers_protocol > 0);
    if (same_incarnation && assignable && job->state() == Job::STATE_STARTING &&
        !job->run->stopping()) {
      // It may never have heard of the rank. One that it has is not started twice, and the end of
      // one that it had is told again; the deadlines of the start cover the rest.
      record.attached = true;
      record.missing_deadline = absl::InfiniteDuration();
      worker->Occupy(record.slot, HolderOf(FenceOf(*job, rank)));
      SendAssignment(job, rank);
      awaited.insert(key);
    } else if (same_incarnation) {
      // Until its end is told the job counts on it, and its slot is nobody else's; after a restart
      // of the coordinator that is not known yet.
      if (const WorkerSlot* slot = worker->FindSlot(record.slot);
          slot == nullptr || !slot->holder.has_value()) {
        worker->Occupy(record.slot, HolderOf(FenceOf(*job, rank)));
      }
      record.missing_deadline = std::min(record.missing_deadline, missing);
      awaited.insert(key);
    } else {
      gone.emplace_back(job, rank);
    }
  }
  for (const WorkerSlot& slot : std::vector<WorkerSlot>(worker->slots())) {
    if (slot.holder.has_value()) {
      const auto key =
          std::make_tuple(slot.holder->uid, slot.holder->generation, slot.holder->rank);
      if (!listed.contains(key) && !awaited.contains(key)) {
        lasp::v1::Fence fence;
        fence.set_uid(slot.holder->uid);
        fence.set_generation(slot.holder->generation);
        fence.set_rank(slot.holder->rank);
        worker->Release(fence);
      }
    }
  }
  for (const auto& [job, rank] : gone) {
    if (job->run != nullptr) {
      RankGone(job, rank, kRankGivenUp,
               {.reason = reason::kAgentRestarted,
                .message = absl::StrCat("the agent of workers/", worker->id(),
                                        " was started anew, and rank ", rank, " with it is gone"),
                .status = {},
                .actor = absl::StrCat("agent/", worker->id())});
    }
  }
}

void JobEngine::RefreshRank(const AgentSessionPtr& session, JobRecord* job, RankRecord* rank,
                            const lasp::v1::RankStatus& status, int64_t log_end) {
  rank->attached = true;
  rank->missing_deadline = absl::InfiniteDuration();
  rank->slot = status.slot();
  lasp::v1::ConnectResponse position;
  *position.mutable_log_position()->mutable_fence() = status.fence();
  position.mutable_log_position()->set_offset(log_end);
  Send(session, std::move(position));
  // What was sent over the last stream may be lost: say it again.
  if (job->run->stopping()) {
    SendStop(job, status.fence().rank());
    return;
  }
  if (status.phase() == lasp::v1::RankStatus::PHASE_STARTING) {
    if (job->run->peers_sent) {
      SendPeerAddresses(job, status.fence().rank());
    }
    return;
  }
  rank->phase = Phase::kReady;
  if (job->state() == Job::STATE_RUNNING && status.phase() == lasp::v1::RankStatus::PHASE_READY) {
    SendStart(job, status.fence().rank());
  }
  AdvanceStart(job);
}

void JobEngine::Disconnected(const AgentSessionPtr& session) {
  session->Drop();
  WorkerRecord* worker = workers_.Find(session->worker_id());
  if (worker != nullptr && worker->session == session) {
    worker->session = nullptr;
    AddWorkerEvent(
        worker, worker->state(), event_reason::kDisconnected,
        "its stream has ended; it is lost when its lease runs out", "coordinator",
        worker->draining() ? lasp::v1::Event::SEVERITY_NORMAL : lasp::v1::Event::SEVERITY_WARNING);
    PublishWorker(worker);
  }
}

void JobEngine::StopForDrain(WorkerRecord* worker) {
  std::set<JobRecord*, ById> drained;
  for (const WorkerSlot& slot : worker->slots()) {
    if (slot.holder.has_value()) {
      const auto job = jobs_by_uid_.find(slot.holder->uid);
      if (job != jobs_by_uid_.end() && job->second->run != nullptr &&
          job->second->run->generation == slot.holder->generation &&
          !job->second->run->stopping()) {
        drained.insert(job->second.get());
      }
    }
  }
  for (JobRecord* job : drained) {
    DrainGeneration(job, worker->id());
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

void JobEngine::LoseWorker(WorkerRecord* worker, absl::string_view why, absl::string_view message) {
  LASP_LOG(kWarning, "worker lost", {{"worker", worker->id()}, {"message", message}});
  if (worker->session != nullptr) {
    worker->session->registered = false;
    worker->session->Close(absl::UnavailableError(message));
  }
  std::vector<SlotHolder> holders;
  for (const WorkerSlot& slot : worker->slots()) {
    if (slot.holder.has_value()) {
      holders.push_back(*slot.holder);
    }
  }
  worker->Lose();
  worker->lost_time = parts_.clock->Now();
  if (worker->left()) {
    StoreWorker(*worker);
  }
  AddWorkerEvent(
      worker, worker->state(), why, message, "coordinator",
      worker->draining() ? lasp::v1::Event::SEVERITY_NORMAL : lasp::v1::Event::SEVERITY_WARNING);
  parts_.leases->Revoke(worker->id());
  for (const SlotHolder& holder : holders) {
    const auto found = jobs_by_uid_.find(holder.uid);
    if (found == jobs_by_uid_.end() || found->second->run == nullptr ||
        found->second->run->generation != holder.generation) {
      continue;
    }
    RankGone(found->second.get(), holder.rank, kRankGivenUp,
             {.reason = std::string(why),
              .message =
                  absl::StrCat("workers/", worker->id(), " with rank ", holder.rank, ": ", message),
              .status = {},
              .actor = "coordinator"});
  }
  PublishWorker(worker);
  schedule_due_ = true;
}

}  // namespace lasp::server
