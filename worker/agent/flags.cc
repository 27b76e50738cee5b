#include "worker/agent/flags.h"

#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/flag_arguments.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/worker_limits.h"
#include "proto/spec/path_lookup.h"
#include "worker/agent/left_states.h"
#include "worker/agent/nvml.h"

ABSL_FLAG(std::string, server, "127.0.0.1:7071", "The coordinator's --worker_address.");
ABSL_FLAG(std::string, worker_id, "",
          "This worker's name to the coordinator; by default that of the last run in --work_dir, "
          "else the host's name.");
ABSL_FLAG(int, cpu_slots, 0,
          "CPU ranks this host takes at a time; may exceed the cores. 0 for one a core, or none "
          "where GPUs are offered.");
ABSL_FLAG(std::string, gpus, "all",
          "GPUs this host offers, one rank each at a time: all that work, none, or their indices "
          "or UUIDs as nvidia-smi shows them, separated by commas.");
ABSL_FLAG(std::string, health_address, "127.0.0.1:7080",
          "Where probes ask: gRPC health v1, services \"\" and \"readiness\" (connected to the "
          "coordinator) and \"liveness\".");
ABSL_FLAG(std::string, metrics_address, "127.0.0.1:9465",
          "Where Prometheus reads /metrics, of the agent and of its ranks.");
ABSL_FLAG(
    int, max_rank_series, 256,
    "Jobs of more ranks than this have no metrics of each rank: an agent shows one series for "
    "all its ranks of such a job.");
ABSL_FLAG(std::string, rank_address, "127.0.0.1",
          "The address of this host on which its ranks listen for their peers. Who connects must "
          "prove, by HMAC, to be of the same generation; what follows is neither encrypted nor "
          "authenticated, nor are the connections that NCCL makes: give an address of a closed "
          "network.");
ABSL_FLAG(std::string, path_roots, "",
          "Folders, separated by commas, under which data paths of jobs must lie. A relative path "
          "is looked up under each in order.");
ABSL_FLAG(std::string, checkpoint_root, "",
          "Folder that lasp-server has as its --checkpoint_root, by the path it has on this host: "
          "ranks write their parts of checkpoints beneath it, and go on from there. Empty: this "
          "host takes no ranks of a coordinator that keeps checkpoints.");
ABSL_FLAG(
    std::string, memory_root, "auto",
    "Folder in memory (a tmpfs) where ranks that outlive a failure leave the training's state, "
    "so that the job goes on without reading a checkpoint; no more than half of the memory "
    "that is free. auto: one of this agent's own in /dev/shm. Empty: none is left.");
ABSL_FLAG(std::string, work_dir, "",
          "Folder of the worker's id, the logs of its ranks and the record of its processes; by "
          "default lasp-worker in $STATE_DIRECTORY or ~/.local/state.");
ABSL_FLAG(std::string, rank_binary, "",
          "The rank program for CPU slots; by default lasp-rank beside this one.");
ABSL_FLAG(std::string, cuda_rank_binary, "",
          "The rank program for GPU slots; by default lasp-rank-cuda beside this one, where lasp "
          "was built with CUDA.");
ABSL_FLAG(std::string, tls_cert, "",
          "This agent's certificate (PEM), with its --worker_id as a DNS name. This and the other "
          "files are read again when they change; deploy/credentials makes them.");
ABSL_FLAG(std::string, tls_key, "", "Its key; only its owner may have rights on the file.");
ABSL_FLAG(std::string, tls_ca, "", "The authority (PEM) of the coordinator's certificate.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Minutes(2),
          "After SIGTERM ranks finish their step; those that have not after so long are killed.");
ABSL_FLAG(int64_t, log_file_bytes, 16 << 20, "Size at which a rank's log goes on in a new file.");
ABSL_FLAG(int, log_files, 4, "Files a rank's log keeps; the oldest is removed.");
ABSL_FLAG(int64_t, log_ship_bytes_per_second, 4 << 20,
          "Bytes of logs sent to the coordinator in a second, over all ranks.");
ABSL_FLAG(absl::Duration, retain_logs, absl::Hours(24 * 7),
          "How long the logs of ended ranks are kept.");
ABSL_FLAG(
    int64_t, retain_log_bytes, int64_t{16} << 30,
    "Bytes of the logs of ended ranks that are kept together; the oldest go first, and before "
    "all others those that the coordinator has.");
ABSL_FLAG(std::string, dump_directory, "",
          "For tests: each rank writes parameters, tokens, loss and gradients of step 1 there.");
ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error.");

namespace lasp::worker {
namespace {

// Below it a single line could not be kept.
constexpr int64_t kMinLogFileBytes = 256 << 10;

constexpr char kHelp[] =
    "lasp-worker: the agent of one host. Takes ranks of training jobs from the coordinator, "
    "starts\n"
    "them as processes, watches over them, and reports their steps and logs.\n\n"
    "  lasp-worker --server=HOST:PORT [flags]\n\n"
    "Once it serves, it prints one JSON line with the addresses on stdout; logs go to stderr.\n"
    "SIGTERM or SIGINT drains: ranks finish their step and leave; a second one kills them.\n"
    "Exit codes: 0 ended as asked, 1 could not serve, 2 wrong usage.";

// Before main makes the first thread, so reading the environment is safe.
std::string Environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? "" : value;
}

absl::StatusOr<std::string> WorkDir() {
  std::string folder = absl::GetFlag(FLAGS_work_dir);
  if (folder.empty() && !Environment("STATE_DIRECTORY").empty()) {
    folder = Environment("STATE_DIRECTORY") + "/lasp-worker";
  }
  if (folder.empty() && !Environment("HOME").empty()) {
    folder = Environment("HOME") + "/.local/state/lasp-worker";
  }
  if (folder.empty()) {
    return FlagError("work_dir", "is required where neither STATE_DIRECTORY nor HOME is set");
  }
  return folder;
}

// `given`, or the program of that name beside this one.
absl::StatusOr<std::string> RankBinary(const char* flag, const std::string& given,
                                       const char* name) {
  if (!given.empty()) {
    return given;
  }
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (size <= 0) {
    return FlagError(flag, "is required where /proc/self/exe cannot be read");
  }
  const std::string own(path, static_cast<size_t>(size));
  return absl::StrCat(own.substr(0, own.rfind('/') + 1), name);
}

absl::StatusOr<SlotOptions> ReadSlotOptions() {
  SlotOptions slots;
  slots.cpu_slots = absl::GetFlag(FLAGS_cpu_slots);
  if (slots.cpu_slots < 0 || slots.cpu_slots > kMaxWorkerSlots) {
    return FlagError("cpu_slots",
                     absl::StrCat(slots.cpu_slots, " is not within 0 to ", kMaxWorkerSlots));
  }
  slots.gpus = absl::GetFlag(FLAGS_gpus);
  if (slots.gpus.empty()) {
    return FlagError("gpus", "is empty: give all, none, or indices or UUIDs");
  }
  LASP_ASSIGN_OR_RETURN(
      slots.cuda_rank_binary,
      RankBinary("cuda_rank_binary", absl::GetFlag(FLAGS_cuda_rank_binary), "lasp-rank-cuda"));
  slots.nvml_library = kNvmlLibrary;
  return slots;
}

absl::Status CheckServer(const std::string& server, const TlsFiles& tls) {
  const size_t colon = server.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == server.size()) {
    return FlagError("server", absl::StrCat("'", server, "' is not HOST:PORT"));
  }
  if (!IsLoopbackAddress(server) && tls.empty()) {
    return FlagError("server", absl::StrCat("'", server,
                                            "' is not loopback: add --tls_cert, --tls_key and "
                                            "--tls_ca, which deploy/credentials makes"));
  }
  return absl::OkStatus();
}

// All three files or none.
absl::StatusOr<TlsFiles> ReadTlsFiles() {
  TlsFiles files = {.certificate = absl::GetFlag(FLAGS_tls_cert),
                    .key = absl::GetFlag(FLAGS_tls_key),
                    .authority = absl::GetFlag(FLAGS_tls_ca),
                    .authority_flag = "tls_ca"};
  const std::pair<const char*, const std::string*> given[] = {
      {"tls_cert", &files.certificate}, {"tls_key", &files.key}, {"tls_ca", &files.authority}};
  for (const auto& [flag, path] : given) {
    if (path->empty() && !files.empty()) {
      return FlagError(flag, "is missing: --tls_cert, --tls_key and --tls_ca go together");
    }
  }
  return files;
}

absl::Status CheckAbove(const char* flag, int64_t value, int64_t least) {
  return value >= least ? absl::OkStatus()
                        : FlagError(flag, absl::StrCat(value, " is below ", least));
}

absl::Status CheckDuration(const char* flag, absl::Duration value) {
  return value >= absl::ZeroDuration()
             ? absl::OkStatus()
             : FlagError(flag, absl::StrCat(absl::FormatDuration(value), " is negative"));
}

}  // namespace

absl::StatusOr<CommandLine> ReadCommandLine(int argc, char** argv) {
  LASP_RETURN_IF_ERROR(
      ParseFlagArguments(argc, argv, {"lasp-worker", kHelp, "worker/agent/flags.cc"}));
  CommandLine line;
  line.server = absl::GetFlag(FLAGS_server);
  LASP_ASSIGN_OR_RETURN(line.tls, ReadTlsFiles());
  LASP_RETURN_IF_ERROR(CheckServer(line.server, line.tls));
  line.worker_id = absl::GetFlag(FLAGS_worker_id);
  LASP_ASSIGN_OR_RETURN(line.slots, ReadSlotOptions());
  line.health_address = absl::GetFlag(FLAGS_health_address);
  line.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  line.max_rank_series = absl::GetFlag(FLAGS_max_rank_series);
  LASP_RETURN_IF_ERROR(CheckAbove("max_rank_series", line.max_rank_series, 0));
  line.rank_address = absl::GetFlag(FLAGS_rank_address);
  if (line.rank_address.empty()) {
    return FlagError("rank_address", "needs an address of this host");
  }
  const auto roots = ParsePathRoots(absl::GetFlag(FLAGS_path_roots));
  if (!roots.ok()) {
    return FlagError("path_roots", roots.status().message());
  }
  line.path_roots = *roots;
  line.checkpoint_root = absl::GetFlag(FLAGS_checkpoint_root);
  if (!line.checkpoint_root.empty() && line.checkpoint_root[0] != '/') {
    return FlagError("checkpoint_root",
                     absl::StrCat("'", line.checkpoint_root, "' is no absolute path"));
  }
  LASP_ASSIGN_OR_RETURN(line.work_dir, WorkDir());
  line.memory_root = absl::GetFlag(FLAGS_memory_root);
  if (line.memory_root == "auto") {
    line.memory_root = DefaultMemoryRoot(line.work_dir);
  } else if (!line.memory_root.empty() && line.memory_root[0] != '/') {
    return FlagError("memory_root", absl::StrCat("'", line.memory_root, "' is no absolute path"));
  }
  LASP_ASSIGN_OR_RETURN(line.rank_binary,
                        RankBinary("rank_binary", absl::GetFlag(FLAGS_rank_binary), "lasp-rank"));
  line.dump_directory = absl::GetFlag(FLAGS_dump_directory);
  line.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  LASP_RETURN_IF_ERROR(CheckDuration("drain_timeout", line.drain_timeout));
  line.log_limits = {.file_bytes = absl::GetFlag(FLAGS_log_file_bytes),
                     .files = absl::GetFlag(FLAGS_log_files)};
  LASP_RETURN_IF_ERROR(CheckAbove("log_file_bytes", line.log_limits.file_bytes, kMinLogFileBytes));
  LASP_RETURN_IF_ERROR(CheckAbove("log_files", line.log_limits.files, 1));
  line.log_ship_bytes_per_second = absl::GetFlag(FLAGS_log_ship_bytes_per_second);
  LASP_RETURN_IF_ERROR(
      CheckAbove("log_ship_bytes_per_second", line.log_ship_bytes_per_second, 1024));
  line.retain_logs = absl::GetFlag(FLAGS_retain_logs);
  LASP_RETURN_IF_ERROR(CheckDuration("retain_logs", line.retain_logs));
  line.retain_log_bytes = absl::GetFlag(FLAGS_retain_log_bytes);
  LASP_RETURN_IF_ERROR(CheckAbove("retain_log_bytes", line.retain_log_bytes, 0));
  LASP_ASSIGN_OR_RETURN(line.log_level, ParseLogLevel(absl::GetFlag(FLAGS_log_level)));
  return line;
}

}  // namespace lasp::worker
