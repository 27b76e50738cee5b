// What the coordinator costs under many: thousands of agents, each on its own connection, with
// submitters, watches and followers of logs. Prints one JSON object.
//
//   control_plane [--agents=5000] [--seconds=10] [--submitters=20] [--watches=200]
//                 [--whole_watches=10] [--followers=50] [--slow_sync_ms=5] [--folder=DIR]
//
// Three runs: as it is; with a disk whose every sync takes longer; and with one that forgets what
// was not synced when the coordinator is killed, after which every acknowledged submit must be
// there. Coordinator and agents are processes of their own (this program with --role).
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "proto/rpc/log.h"
#include "server/server.h"
#include "tests/bench/control_plane/bench_process.h"
#include "tests/bench/control_plane/load_clients.h"
#include "tests/bench/control_plane/simulated_agents.h"
#include "tests/support/sqlite_fault_vfs.h"

ABSL_FLAG(std::string, role, "", "Empty for the benchmark itself; server or agents for its parts.");
ABSL_FLAG(std::string, folder, "", "Where the store lies; a temporary folder where empty.");
ABSL_FLAG(std::string, worker_address, "", "For --role=agents.");
ABSL_FLAG(int, agents, 5'000, "Simulated agents.");
ABSL_FLAG(int, seconds, 10, "Of submitting, each run.");
ABSL_FLAG(int, submitters, 20, "Closed loops of submits.");
ABSL_FLAG(int, watches, 200, "Watches over jobs.");
ABSL_FLAG(int, whole_watches, 10, "Of these, how many see every job; each other waits for one.");
ABSL_FLAG(int, followers, 50, "Followers of logs.");
ABSL_FLAG(int, slow_sync_ms, 5, "The delay of the second run.");
ABSL_FLAG(int, sync_delay_ms, 0, "For --role=server: added to each sync.");
ABSL_FLAG(bool, drop_unsynced, false, "For --role=server: lose what is not synced when killed.");

namespace lasp::bench {
namespace {

using nlohmann::json;

constexpr char kVfs[] = "bench-disk";

void RaiseFileLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int AwaitSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  return 0;
}

void PrintLine(const json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

int RunServer() {
  static testing::DiskFaults disk;
  disk.sync_delay_micros = int64_t{absl::GetFlag(FLAGS_sync_delay_ms)} * 1'000;
  disk.drop_unsynced = absl::GetFlag(FLAGS_drop_unsynced);
  testing::RegisterFaultVfs(kVfs, &disk);
  server::ServerOptions options;
  options.data_dir = absl::GetFlag(FLAGS_folder) + "/data";
  options.api_address = "127.0.0.1:0";
  options.worker_address = "127.0.0.1:0";
  options.health_address = "127.0.0.1:0";
  options.metrics_address = "127.0.0.1:0";
  options.path_roots = {absl::GetFlag(FLAGS_folder)};
  options.core.store_vfs = kVfs;
  // All that the submitters can send.
  options.core.max_queued_jobs = 1'000'000'000;
  options.max_calls_a_second = 1'000'000;
  // All of them call from this one.
  options.connections.a_host = options.connections.all;
  options.connections.calls_a_second = 1'000'000;
  const auto server = server::Server::Start(options);
  if (!server.ok()) {
    Die(std::string(server.status().message()));
  }
  PrintLine({{"api_address", (*server)->addresses().api_address},
             {"worker_address", (*server)->addresses().worker_address}});
  return AwaitSignal();
}

int RunAgents() {
  AgentOptions options;
  options.worker_address = absl::GetFlag(FLAGS_worker_address);
  options.count = absl::GetFlag(FLAGS_agents);
  const absl::Time start = absl::Now();
  SimulatedAgents agents(options);
  const bool all = agents.AwaitRegistered(absl::Seconds(120));
  PrintLine({{"registered", agents.Totals().registered},
             {"all", all},
             {"connect_seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  AwaitSignal();
  const AgentTotals totals = agents.Totals();
  PrintLine({{"lost", totals.lost},
             {"assignments", totals.assignments},
             {"finished_ranks", totals.finished_ranks},
             {"steps", totals.steps},
             {"log_lines", totals.log_lines}});
  std::_Exit(0);
}

// Of 4 KiB writes, each synced, in one second: what the disk itself can do.
double SyncsPerSecond(const std::string& folder) {
  const std::string path = folder + "/sync-probe";
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const std::string page(4'096, 'x');
  int count = 0;
  const absl::Time start = absl::Now();
  while (absl::Now() < start + absl::Seconds(1)) {
    if (pwrite(fd, page.data(), page.size(), int64_t{count % 64} * 4'096) < 0 ||
        fdatasync(fd) != 0) {
      Die("the disk cannot be written");
    }
    ++count;
  }
  close(fd);
  unlink(path.c_str());
  return count / absl::ToDoubleSeconds(absl::Now() - start);
}

std::string NewFolder(const std::string& root, const std::string& name) {
  const std::string folder = absl::StrCat(root, "/", name);
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/corpus.txt") << std::string(1 << 20, 'x');
  return folder;
}

json Latencies(const SubmitResult& submits) {
  return {{"submits_per_second", submits.PerSecond()},
          {"p50_ms", submits.Quantile(0.5)},
          {"p99_ms", submits.Quantile(0.99)},
          {"max_ms", submits.Quantile(1)},
          {"errors", submits.errors}};
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// The whole load on one coordinator.
json RunLoad(const std::string& folder, int sync_delay_ms) {
  BenchProcess server(
      {"--role=server", "--folder=" + folder, absl::StrCat("--sync_delay_ms=", sync_delay_ms)},
      folder, "server");
  const json addresses = server.AwaitLine(0, absl::Seconds(20));
  const std::string api = addresses["api_address"];
  const double idle_mib = server.ResidentMib();
  BenchProcess agents({"--role=agents", absl::StrCat("--agents=", absl::GetFlag(FLAGS_agents)),
                       "--worker_address=" + addresses["worker_address"].get<std::string>()},
                      folder, "agents");
  const json connected = agents.AwaitLine(0, absl::Seconds(130));
  const double connected_mib = server.ResidentMib();

  // Jobs that outlast the run, to be watched and followed; then one for each other slot, so that
  // what is measured is a busy cluster: jobs end and start while submits come in and wait.
  const std::vector<std::string> names = Submit(api, {.submitters = 4,
                                                      .min_steps = 1'000'000,
                                                      .max_steps = 1'000'000,
                                                      .duration = absl::Seconds(30),
                                                      .max_jobs = absl::GetFlag(FLAGS_followers)})
                                             .names;
  if (names.empty()) {
    Die("nothing could be submitted");
  }
  const SubmitResult fill =
      Submit(api, {.duration = absl::Seconds(30),
                   .max_jobs = absl::GetFlag(FLAGS_agents) - absl::GetFlag(FLAGS_followers)});
  const auto watches =
      Watch(api, absl::GetFlag(FLAGS_watches), absl::GetFlag(FLAGS_whole_watches), names);
  const auto followers = FollowLogs(api, names);

  const double cpu_before = server.CpuSeconds();
  const double agents_cpu_before = agents.CpuSeconds();
  const double own_cpu_before = OwnCpuSeconds();
  const int64_t events_before = watches->received();
  const int64_t lines_before = followers->received();
  const SubmitResult submits =
      Submit(api, {.submitters = absl::GetFlag(FLAGS_submitters),
                   .duration = absl::Seconds(absl::GetFlag(FLAGS_seconds))});
  const double cpu = server.CpuSeconds() - cpu_before;

  json result = Latencies(submits);
  result["fill_submits_per_second"] = fill.PerSecond();
  result["agents"] = connected["registered"];
  result["connect_seconds"] = connected["connect_seconds"];
  result["server_cpu_cores"] = cpu / submits.seconds;
  result["server_idle_mib"] = idle_mib;
  result["server_connected_mib"] = connected_mib;
  result["server_mib"] = server.ResidentMib();
  result["server_peak_mib"] = server.PeakResidentMib();
  result["client_cpu_cores"] = (OwnCpuSeconds() - own_cpu_before) / submits.seconds;
  result["agents_cpu_cores"] = (agents.CpuSeconds() - agents_cpu_before) / submits.seconds;
  result["watches_open"] = watches->open();
  result["whole_watches"] = absl::GetFlag(FLAGS_whole_watches);
  result["watch_events_per_second"] =
      static_cast<double>(watches->received() - events_before) / submits.seconds;
  result["followers_open"] = followers->open();
  result["log_messages_per_second"] =
      static_cast<double>(followers->received() - lines_before) / submits.seconds;
  agents.End(SIGTERM);
  result["agent_totals"] = agents.AwaitLine(1, absl::Seconds(5));
  return result;
}

// Submits, kills the coordinator in the middle, and looks for what it had acknowledged.
json RunCrash(const std::string& folder) {
  SubmitResult acknowledged;
  {
    BenchProcess server({"--role=server", "--folder=" + folder, "--drop_unsynced"}, folder,
                        "server");
    const std::string api = server.AwaitLine(0, absl::Seconds(20))["api_address"];
    std::thread killer([&server] {
      absl::SleepFor(absl::Seconds(2));
      server.End(SIGKILL);
    });
    acknowledged = Submit(api, {.submitters = absl::GetFlag(FLAGS_submitters),
                                .duration = absl::Seconds(4),
                                .ignore_errors = true});
    killer.join();
  }
  BenchProcess successor({"--role=server", "--folder=" + folder}, folder, "successor");
  const std::string api = successor.AwaitLine(0, absl::Seconds(30))["api_address"];
  const std::vector<std::string> listed = ListAll(api);
  const std::set<std::string> present(listed.begin(), listed.end());
  int64_t lost = 0;
  for (const std::string& name : acknowledged.names) {
    lost += present.count(name) == 0 ? 1 : 0;
  }
  return {{"acknowledged", acknowledged.names.size()}, {"present", present.size()}, {"lost", lost}};
}

// What is aimed at on two cores that do nothing else.
json Bounds(const json& result) {
  const json& plain = result["plain"];
  return {{"submits_per_second_2000", plain["submits_per_second"] >= 2'000},
          {"p99_ms_20", plain["p99_ms"] < 20},
          {"server_mib_500", plain["server_peak_mib"] < 500},
          {"slow_sync_submits_per_second_1000", result["slow_sync"]["submits_per_second"] >= 1'000},
          {"no_acknowledged_submit_lost", result["crash"]["lost"] == 0}};
}

// What holds however busy the machine is: rates depend on who else uses it, these do not.
bool Sound(const json& result) {
  bool sound = result["crash"]["lost"] == 0;
  for (const char* run : {"plain", "slow_sync"}) {
    const json& load = result[run];
    sound = sound && load["errors"] == 0 && load["agent_totals"]["lost"] == 0 &&
            load["agents"] == absl::GetFlag(FLAGS_agents) && load["server_peak_mib"] < 500;
  }
  return sound;
}

int RunAll() {
  std::string root = absl::GetFlag(FLAGS_folder);
  const bool own = root.empty();
  if (own) {
    std::string pattern = (std::filesystem::temp_directory_path() / "lasp-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      Die("no temporary folder");
    }
    root = pattern;
  }
  json result;
  double load[1] = {0};
  result["load_average_before"] = getloadavg(load, 1) == 1 ? load[0] : -1;
  result["cores"] = sysconf(_SC_NPROCESSORS_ONLN);
  result["disk_syncs_per_second"] = SyncsPerSecond(root);
  result["plain"] = RunLoad(NewFolder(root, "plain"), 0);
  result["slow_sync"] = RunLoad(NewFolder(root, "slow"), absl::GetFlag(FLAGS_slow_sync_ms));
  result["slow_sync"]["sync_delay_ms"] = absl::GetFlag(FLAGS_slow_sync_ms);
  result["crash"] = RunCrash(NewFolder(root, "crash"));
  if (own) {
    std::error_code ignored;
    std::filesystem::remove_all(root, ignored);
  }
  result["meets"] = Bounds(result);
  std::printf("%s\n", result.dump(2).c_str());
  return Sound(result) ? 0 : 1;
}

}  // namespace
}  // namespace lasp::bench

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  // The parts end by SIGTERM, taken by sigwait: blocked before any thread exists.
  const std::string role = absl::GetFlag(FLAGS_role);
  if (!role.empty()) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
  // As lasp-server does.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  lasp::InitializeLog({.level = lasp::LogLevel::kWarning, .component = role, .fields = {}});
  lasp::bench::RaiseFileLimit();
  if (role == "server") {
    return lasp::bench::RunServer();
  }
  return role == "agents" ? lasp::bench::RunAgents() : lasp::bench::RunAll();
}
