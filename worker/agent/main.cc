// lasp-worker: the agent of one host.
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_join.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/disk_metrics.h"
#include "proto/rpc/disk_space.h"
#include "proto/rpc/flag_arguments.h"
#include "proto/rpc/log.h"
#include "proto/rpc/metrics_exposer.h"
#include "proto/rpc/process_metrics.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/systemd_notifier.h"
#include "worker/agent/agent.h"
#include "worker/agent/coordinator_client.h"
#include "worker/agent/flags.h"
#include "worker/agent/health_server.h"
#include "worker/agent/left_states.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/slots.h"
#include "worker/agent/work_folder.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kDiskInterval = absl::Seconds(10);
constexpr absl::Duration kLeftoverTime = absl::Seconds(10);
// After the last rank has left: for its exit and the end of its log to reach the coordinator.
constexpr absl::Duration kFarewellTime = absl::Seconds(5);
// For a coordinator that is away to come back and hear of it. One that starts anew takes some
// seconds, and between two dials lie up to five.
constexpr absl::Duration kReturnTime = absl::Seconds(15);

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// Whether a signal to end came within `timeout`.
bool WaitForSignal(absl::Duration timeout) {
  const sigset_t set = EndSignals();
  const timespec wait = absl::ToTimespec(timeout);
  return sigtimedwait(&set, nullptr, &wait) > 0;
}

// Until the ranks have left, and the coordinator knows. A further signal cuts short.
void DrainAndLeave(Agent* agent, CoordinatorClient* client, absl::Duration drain_timeout,
                   const SystemdNotifier& systemd) {
  absl::Duration next_alive = absl::ZeroDuration();
  // Waits a moment. Whether a further signal came.
  const auto interrupted = [&systemd, &next_alive] {
    constexpr absl::Duration kPoll = absl::Milliseconds(50);
    if (SystemClock().Monotonic() >= next_alive) {
      systemd.Alive();
      next_alive = SystemClock().Monotonic() + systemd.alive_interval();
    }
    return WaitForSignal(kPoll);
  };
  // Ranks that overstay are killed by the supervisor; this bound only covers ones that cannot be.
  absl::Duration deadline = SystemClock().Monotonic() + drain_timeout + kFarewellTime;
  absl::Duration return_time = kReturnTime;
  agent->Drain();
  while (!agent->WaitUntilNoRanks(absl::ZeroDuration()) && SystemClock().Monotonic() < deadline) {
    if (interrupted()) {
      LASP_LOG(kWarning, "a second signal: killing the ranks");
      agent->Kill("the worker was told to end at once");
      deadline = SystemClock().Monotonic() + kFarewellTime;
      return_time = absl::ZeroDuration();
    }
  }
  // For what is left to say, counted from when the coordinator is there again.
  deadline = SystemClock().Monotonic() + kFarewellTime;
  const absl::Duration return_deadline = SystemClock().Monotonic() + return_time;
  do {
    const absl::Duration now = SystemClock().Monotonic();
    const bool connected = agent->connected();
    // Logs are no reason to wait for one that is away: the next agent takes them from the disk.
    if ((connected ? agent->AllReported() : agent->AllReportsStored()) ||
        now >= (connected ? deadline : return_deadline)) {
      break;
    }
    deadline = connected ? deadline : now + kFarewellTime;
  } while (!interrupted());
  client->Finish(kFarewellTime);
}

// As the flag takes it.
std::string OfferedGpus(const std::vector<lasp::v1::Slot>& slots) {
  std::vector<std::string> uuids;
  for (const lasp::v1::Slot& slot : slots) {
    if (slot.kind() == lasp::v1::Slot::KIND_GPU) {
      uuids.push_back(slot.gpu().uuid());
    }
  }
  return uuids.empty() ? "none" : absl::StrJoin(uuids, ",");
}

int CountCpuSlots(const std::vector<lasp::v1::Slot>& slots) {
  return static_cast<int>(std::count_if(slots.begin(), slots.end(), [](const auto& slot) {
    return slot.kind() == lasp::v1::Slot::KIND_CPU;
  }));
}

absl::Status Serve(const CommandLine& line, const SystemdNotifier& systemd) {
  LASP_ASSIGN_OR_RETURN(CoordinatorChannel channel,
                        CoordinatorChannel::Open(line.server, line.tls));
  LASP_ASSIGN_OR_RETURN(const auto folder, WorkFolder::Open(line.work_dir));
  LASP_ASSIGN_OR_RETURN(const std::string worker_id, folder->WorkerId(line.worker_id));
  const RankLedger ledger(folder->ranks());
  LASP_RETURN_IF_ERROR(ledger.KillLeftovers(kLeftoverTime).status());

  lasp::v1::HostReport host_report;
  LASP_ASSIGN_OR_RETURN(const std::vector<lasp::v1::Slot> slots,
                        OfferSlots(line.slots, &host_report));
  const int cpu_slots = CountCpuSlots(slots);

  LASP_ASSIGN_OR_RETURN(const auto health, HealthServer::Start(line.health_address));
  const auto process_metrics = std::make_shared<ProcessMetrics>("lasp-worker");
  const auto rank_metrics = std::make_shared<RankMetrics>(
      worker_id, &SystemClock(), RankMetricsOptions{.max_ranks_of_a_job = line.max_rank_series});
  const auto agent_metrics =
      std::make_shared<AgentMetrics>(static_cast<int>(slots.size()), rank_metrics.get());
  const auto disk_metrics = std::make_shared<DiskMetrics>("lasp_agent_work_dir", line.work_dir);
  // Behind them, and so gone before them: a scrape holds what it collects from, not what that one
  // points to.
  LASP_ASSIGN_OR_RETURN(const auto exposer, MetricsExposer::Create(line.metrics_address));
  exposer->Add(process_metrics);
  exposer->Add(rank_metrics);
  exposer->Add(agent_metrics);
  exposer->Add(disk_metrics);

  RankLogs logs({.folder = folder->logs(),
                 .limits = line.log_limits,
                 .ship_bytes_per_second = line.log_ship_bytes_per_second,
                 .retention = line.retain_logs,
                 .retained_bytes = line.retain_log_bytes},
                &SystemClock());
  std::string memory_root = line.memory_root;
  if (!memory_root.empty()) {
    if (const absl::Status prepared = PrepareMemoryRoot(memory_root); !prepared.ok()) {
      LASP_LOG(kWarning, "no state will be left in memory: jobs go on from checkpoints alone",
               {{"status", prepared.ToString()}});
      memory_root.clear();
    }
  }
  AgentOptions options;
  options.worker_id = worker_id;
  options.drain_timeout = line.drain_timeout;
  options.host_report = host_report;
  options.supervisor = {.rank_binary = line.rank_binary,
                        .cuda_rank_binary = line.slots.cuda_rank_binary,
                        .slots = slots,
                        .threads_a_rank = ThreadsOfARank(slots.size()),
                        .path_roots = line.path_roots,
                        .rank_address = line.rank_address,
                        .dump_directory = line.dump_directory,
                        .checkpoint_root = line.checkpoint_root,
                        .memory_root = memory_root,
                        .environment = OwnEnvironment()};
  Agent agent(options, &ledger, &logs, rank_metrics.get(), agent_metrics.get(), &SystemClock());
  CoordinatorClient client(std::move(channel), &agent,
                           [&health](bool connected) { health->SetReady(connected); });

  std::printf("%s\n", ServingLine({{"worker_id", worker_id},
                                   {"server", line.server},
                                   {"health_address", health->address()},
                                   {"metrics_address", exposer->address()},
                                   {"rank_address", line.rank_address},
                                   {"memory_root", memory_root},
                                   {"gpus", OfferedGpus(slots)},
                                   {"cpu_slots", absl::StrCat(cpu_slots)},
                                   {"work_dir", line.work_dir}})
                          .c_str());
  std::fflush(stdout);
  LASP_LOG(kInfo, "serving",
           {{"worker", worker_id},
            {"gpu_slots", static_cast<int>(slots.size()) - cpu_slots},
            {"cpu_slots", cpu_slots}});
  systemd.Ready();
  // The disk is asked here, where one that hangs keeps no heartbeat back.
  do {
    systemd.Alive();
    if (const std::optional<DiskSpace> disk = ReadDiskSpace(line.work_dir)) {
      agent.SetWorkDisk(*disk);
    }
  } while (!WaitForSignal(std::min(systemd.alive_interval(), kDiskInterval)));
  LASP_LOG(kInfo, "draining");
  systemd.Stopping();
  DrainAndLeave(&agent, &client, line.drain_timeout, systemd);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const absl::StatusOr<CommandLine> line = ReadCommandLine(argc, argv);
  if (!line.ok()) {
    std::fprintf(stderr, "lasp-worker: %s\n", std::string(line.status().message()).c_str());
    return 2;
  }
  const SystemdNotifier systemd = SystemdNotifier::FromEnvironment();
  // Before the first thread: all inherit it, and the main thread alone takes the signals.
  const sigset_t set = EndSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  InitializeLog({.level = line->log_level, .component = "lasp-worker", .fields = {}});
  PrepareGrpc();
  const absl::Status served = Serve(*line, systemd);
  if (!served.ok()) {
    LASP_LOG(kError, served.message());
    return absl::IsInvalidArgument(served) || absl::IsNotFound(served) ? 2 : 1;
  }
  return 0;
}

}  // namespace
}  // namespace lasp::worker

int main(int argc, char** argv) { return lasp::worker::Main(argc, argv); }
