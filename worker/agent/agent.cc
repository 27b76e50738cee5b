#include "worker/agent/agent.h"

#include <algorithm>
#include <utility>

#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/version.h"
#include "worker/agent/rank_exit.h"
#include "worker/agent/work_folder.h"
#include "worker/telemetry/host_memory.h"
#include "worker/telemetry/model_flops.h"

namespace lasp::worker {
namespace {

using lasp::v1::ConnectRequest;
using lasp::v1::ConnectResponse;
using lasp::v1::RankStatus;

constexpr absl::Duration kSettleTime = absl::Seconds(5);
constexpr absl::Duration kDefaultHeartbeat = absl::Seconds(3);

absl::Duration HeartbeatInterval(const lasp::v1::Welcome& welcome) {
  const absl::Duration interval = FromProtoDuration(welcome.heartbeat_interval());
  return interval > absl::ZeroDuration() ? interval : kDefaultHeartbeat;
}

bool Lists(const std::vector<RankStatus>& ranks, const lasp::v1::Fence& fence) {
  return std::any_of(ranks.begin(), ranks.end(),
                     [&fence](const RankStatus& rank) { return SameFence(rank.fence(), fence); });
}

ConnectRequest AddressMessage(const lasp::v1::Fence& fence, const std::string& address) {
  ConnectRequest request;
  *request.mutable_rank_address()->mutable_fence() = fence;
  request.mutable_rank_address()->set_address(address);
  return request;
}

ConnectRequest DrainingMessage() {
  ConnectRequest request;
  request.mutable_draining();
  return request;
}

ConnectRequest ReadyMessage(const lasp::v1::Fence& fence, const std::string& gemm_record) {
  ConnectRequest request;
  *request.mutable_rank_ready()->mutable_fence() = fence;
  request.mutable_rank_ready()->set_gemm_record(gemm_record);
  return request;
}

}  // namespace

Agent::Agent(AgentOptions options, const RankLedger* ledger, RankLogs* logs,
             RankMetrics* rank_metrics, AgentMetrics* agent_metrics, const Clock* clock)
    : Agent(
          options,
          [&options, ledger, logs](RankObserver* observer) {
            return std::make_unique<Supervisor>(options.supervisor, ledger, logs, observer);
          },
          logs, rank_metrics, agent_metrics, clock) {
  outbox_.ReadLogsOnThread();
}

Agent::Agent(AgentOptions options, const KeeperFactory& keep, RankLogs* logs,
             RankMetrics* rank_metrics, AgentMetrics* agent_metrics, const Clock* clock)
    : options_(std::move(options)),
      incarnation_(NewUuid()),
      logs_(logs),
      rank_metrics_(rank_metrics),
      agent_metrics_(agent_metrics),
      clock_(clock),
      outbox_(
          &logs->shipper(), clock, [this] { return MakeHeartbeat(); }, options_.reports),
      ranks_(keep(this)) {}

Agent::~Agent() = default;

lasp::v1::Heartbeat Agent::MakeHeartbeat() const {
  lasp::v1::Heartbeat heartbeat;
  const absl::Duration monotonic = clock_->Monotonic();
  for (const LiveRank& rank : ranks_->Ranks()) {
    lasp::v1::RankStatus& status = *heartbeat.add_ranks();
    status = rank.status;
    if (status.has_progress()) {
      const absl::Duration silence = monotonic - rank.spoken;
      lasp::v1::RankProgress& progress = *status.mutable_progress();
      *progress.mutable_silence() = ToProtoDuration(silence);
      *progress.mutable_idle() = ToProtoDuration(FromProtoDuration(progress.idle()) + silence);
    }
  }
  *heartbeat.mutable_time() = ToProtoTime(clock_->Now());
  MutexLock lock(&mutex_);
  heartbeat.set_work_disk_free_bytes(work_disk_.free_bytes);
  heartbeat.set_work_disk_size_bytes(work_disk_.size_bytes);
  return heartbeat;
}

void Agent::SetWorkDisk(const DiskSpace& disk) {
  MutexLock lock(&mutex_);
  work_disk_ = disk;
}

void Agent::BeginStream() {
  // What the last stream still ordered is to be seen in the greeting.
  ranks_->WaitUntilSettled(kSettleTime);
  ConnectRequest request;
  lasp::v1::Hello* const hello = request.mutable_hello();
  hello->set_worker_id(options_.worker_id);
  hello->set_incarnation(incarnation_);
  hello->set_protocol_version(kWorkerProtocol.oldest);
  hello->set_newest_protocol_version(kWorkerProtocol.newest);
  hello->set_version(Version());
  hello->set_host_name(HostName());
  hello->set_gpu_driver_version(options_.host_report.gpu_driver_version());
  *hello->mutable_gpu_problems() = options_.host_report.gpu_problems();
  for (const lasp::v1::Slot& slot : options_.supervisor.slots) {
    *hello->add_slots() = slot;
  }
  // In this order, so that one which ends meanwhile is in one of the two lists at least.
  const std::vector<LiveRank> live = ranks_->Ranks();
  const std::vector<RankStatus> ended = outbox_.EndedRanks();
  // Steps that go before the exit may take long, and until then its rank is not missing. Those that
  // live come last, for a slot is held by the last that is said to be there.
  for (const RankStatus& rank : ended) {
    if (rank.slot() < hello->slots_size()) {
      *hello->add_ranks() = rank;
    }
  }
  for (const LiveRank& rank : live) {
    if (Lists(ended, rank.status.fence())) {
      continue;
    }
    *hello->add_ranks() = rank.status;
    lasp::v1::Slot* const slot = hello->mutable_slots(rank.status.slot());
    slot->set_training_job(rank.status.fence().training_job());
    slot->set_generation(rank.status.fence().generation());
    slot->set_rank(rank.status.fence().rank());
  }
  {
    MutexLock lock(&mutex_);
    hello->set_draining(draining_);
  }
  outbox_.BeginSession(std::move(request));
}

std::optional<ConnectRequest> Agent::NextMessage(absl::Duration max_wait) {
  agent_metrics_->SetBufferedSteps(outbox_.buffered_steps(), outbox_.thinned_steps());
  agent_metrics_->SetLogBytes(logs_->shipper().sent_bytes(), logs_->shipper().dropped_bytes());
  return outbox_.Next(max_wait);
}

void Agent::EndStream() {
  outbox_.EndSession();
  agent_metrics_->SetConnected(false);
}

void Agent::Handle(const ConnectResponse& response) {
  if (response.acked_sequence() > 0) {
    outbox_.Acknowledge(response.acked_sequence());
  }
  switch (response.body_case()) {
    case ConnectResponse::kWelcome:
      HandleWelcome(response.welcome());
      break;
    case ConnectResponse::kAssignment:
      HandleAssignment(response.assignment());
      break;
    case ConnectResponse::kPeerAddresses:
      ranks_->SetPeers(response.peer_addresses());
      break;
    case ConnectResponse::kStart:
      ranks_->Train(response.start());
      break;
    case ConnectResponse::kStop:
      ranks_->Stop(response.stop());
      break;
    case ConnectResponse::kDrain:
      LASP_LOG(kInfo, "the coordinator drains this worker");
      Drain();
      break;
    case ConnectResponse::kLogPosition:
      logs_->shipper().SetPosition(response.log_position().fence(),
                                   response.log_position().offset());
      break;
    case ConnectResponse::kAck:
    case ConnectResponse::BODY_NOT_SET:
      break;
  }
}

void Agent::HandleWelcome(const lasp::v1::Welcome& welcome) {
  LASP_LOG(kInfo, "connected to the coordinator",
           {{"session", welcome.session_id()},
            {"protocol_version", std::max(welcome.protocol_version(), 1)}});
  // Welcomed first: what a rank says from here on goes out by itself, and twice is no harm.
  outbox_.Welcome(HeartbeatInterval(welcome));
  agent_metrics_->SetConnected(true);
  {
    MutexLock lock(&mutex_);
    // It may have been decided after the greeting was made.
    if (draining_) {
      outbox_.AddControl(DrainingMessage());
    }
  }
  for (const LiveRank& rank : ranks_->Ranks()) {
    const RankStatus::Phase phase = rank.status.phase();
    const bool waits = phase == RankStatus::PHASE_STARTING || phase == RankStatus::PHASE_READY;
    if (waits && !rank.address.empty()) {
      outbox_.AddControl(AddressMessage(rank.status.fence(), rank.address));
    }
    if (phase == RankStatus::PHASE_READY) {
      outbox_.AddControl(ReadyMessage(rank.status.fence(), rank.gemm_record));
    }
  }
}

void Agent::HandleAssignment(const lasp::v1::Assignment& assignment) {
  bool draining = false;
  {
    MutexLock lock(&mutex_);
    draining = draining_;
  }
  if (!draining || Holds(assignment.fence())) {
    // Said again of a rank that is here, it starts nothing.
    ranks_->Launch(assignment);
  } else {
    outbox_.AddExit(DescribeRefusal(assignment.fence(), assignment.slot(), kRankDrained,
                                    absl::UnavailableError("the worker drains")));
  }
}

bool Agent::Holds(const lasp::v1::Fence& fence) const {
  const std::vector<LiveRank> ranks = ranks_->Ranks();
  return std::any_of(ranks.begin(), ranks.end(), [&fence](const LiveRank& rank) {
    return SameFence(rank.status.fence(), fence);
  });
}

void Agent::Drain() {
  {
    MutexLock lock(&mutex_);
    draining_ = true;
  }
  outbox_.AddControl(DrainingMessage());
  ranks_->DrainAll(options_.drain_timeout);
}

bool Agent::AllReported() const {
  // In this order: what comes out of a pipe is still to be sent.
  return logs_->collector().WaitUntilIdle(absl::ZeroDuration()) && logs_->shipper().AllSent() &&
         outbox_.AllAcknowledged();
}

void Agent::OnStarted(const lasp::v1::Assignment& assignment) {
  const std::vector<lasp::v1::Slot>& slots = options_.supervisor.slots;
  const lasp::v1::Slot& slot = slots[static_cast<size_t>(assignment.slot())];
  rank_metrics_->Started(
      {.fence = assignment.fence(),
       .slot = assignment.slot(),
       .world_size = assignment.world_size(),
       .gpu_uuid = slot.gpu().uuid(),
       .model_flops_per_token = ModelFlopsPerToken(assignment.spec().model(),
                                                   assignment.spec().data().sequence_length()),
       .peak_flops_per_second = PeakFlopsPerSecond(slot.gpu().name()),
       .memory_limit_bytes = slot.kind() == lasp::v1::Slot::KIND_GPU
                                 ? slot.gpu().memory_bytes()
                                 : HostMemoryBytes() / static_cast<int64_t>(slots.size())});
  agent_metrics_->RankStarted();
}

void Agent::OnAddress(const lasp::v1::RankAddress& address) {
  outbox_.AddControl(AddressMessage(address.fence(), address.address()));
}

void Agent::OnReady(const lasp::v1::RankReady& ready) {
  outbox_.AddControl(ReadyMessage(ready.fence(), ready.gemm_record()));
}

void Agent::OnStep(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step) {
  rank_metrics_->Stepped(fence, step);
  if (step.has_metrics()) {
    outbox_.AddStep(fence, step.metrics());
  }
}

void Agent::OnShard(const lasp::v1::ShardWritten& shard) { outbox_.AddShard(shard); }

void Agent::OnCheckpoints(const lasp::v1::Fence& fence,
                          const lasp::internal::v1::CheckpointTotals& totals) {
  rank_metrics_->Checkpointed(fence, totals);
}

void Agent::OnEnded(const lasp::v1::RankExited& exited) {
  if (rank_metrics_->Ended(exited.fence())) {
    agent_metrics_->RankEnded(exited.exit_code(), exited.status().code());
  }
  outbox_.AddExit(exited);
}

}  // namespace lasp::worker
