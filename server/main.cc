// lasp-server: the coordinator.
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/flag_arguments.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/systemd_notifier.h"
#include "proto/rpc/version.h"
#include "server/data_folder_lock.h"
#include "server/flags.h"
#include "server/server.h"
#include "server/store_restore.h"

namespace {

constexpr int kExitCannotServe = 1;
constexpr int kExitUsage = 2;

// Each agent and each user holds a descriptor; a shell's usual limit of 1,024 is soon reached.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

// Buffers of large messages go back to the system when they are freed. Left to itself the allocator
// takes the first such buffer for the usual size, and then keeps the next ones in its heaps.
void GiveLargeBuffersBack() {
  constexpr int kLarge = 256 << 10;
  mallopt(M_MMAP_THRESHOLD, kLarge);
  mallopt(M_TRIM_THRESHOLD, 2 * kLarge);
}

// What a flood of small buffers has left free in the allocator's heaps, one for some threads each,
// stays there otherwise, however much it is.
void GiveFreedBack() {
  constexpr size_t kMuch = size_t{64} << 20;
  if (mallinfo2().fordblks > kMuch) {
    malloc_trim(kMuch / 2);
  }
}

// Until one of `signals` comes; systemd hears meanwhile that the process is alive.
int AwaitSignal(const sigset_t& signals, const lasp::SystemdNotifier& systemd) {
  const timespec interval = absl::ToTimespec(std::min(systemd.alive_interval(), absl::Seconds(5)));
  for (;;) {
    systemd.Alive();
    GiveFreedBack();
    const int signal_number = sigtimedwait(&signals, nullptr, &interval);
    if (signal_number > 0) {
      return signal_number;
    }
  }
}

int ExitCodeOf(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? kExitUsage
                                                                     : kExitCannotServe;
}

// Nobody may serve meanwhile.
absl::StatusOr<lasp::server::RestoreResult> Restore(const lasp::server::RestoreRequest& request) {
  LASP_ASSIGN_OR_RETURN(const auto lock, lasp::server::DataFolderLock::Acquire(request.data_dir));
  return lasp::server::RestoreStore(request, lasp::SystemClock().Now());
}

int RunRestore(const lasp::server::RestoreRequest& request) {
  const auto result = Restore(request);
  if (!result.ok()) {
    std::fprintf(stderr, "lasp-server: %s\n", std::string(result.status().message()).c_str());
    return ExitCodeOf(result.status());
  }
  const std::string moment =
      result->backup_time == absl::InfinitePast()
          ? "an unknown moment"
          : absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", result->backup_time, absl::UTCTimeZone());
  std::printf("%s\n", absl::StrCat("restored ", result->jobs, " jobs as of ", moment).c_str());
  if (!result->put_aside.empty()) {
    std::printf("the store that was there: %s\n", result->put_aside.c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto line = lasp::server::ParseCommandLineFlags(argc, argv);
  if (!line.ok()) {
    std::fprintf(stderr, "lasp-server: %s\n", std::string(line.status().message()).c_str());
    return kExitUsage;
  }
  if (!line->restore.backup.empty()) {
    return RunRestore(line->restore);
  }
  const auto systemd = lasp::SystemdNotifier::FromEnvironment();
  // Blocked before any thread exists, so that only AwaitSignal sees them. SIGPIPE: a client that
  // leaves must not end the process.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  RaiseFileLimit();
  GiveLargeBuffersBack();
  lasp::InitializeLog({.level = line->log_level, .component = "lasp-server", .fields = {}});
  lasp::PrepareGrpc();
  const auto server = lasp::server::Server::Start(line->options);
  if (!server.ok()) {
    std::fprintf(stderr, "lasp-server: %s\n", std::string(server.status().message()).c_str());
    return ExitCodeOf(server.status());
  }
  const lasp::server::ServerAddresses& addresses = (*server)->addresses();
  LASP_LOG(kInfo, "serving",
           {{"version", lasp::Version()},
            {"api_address", addresses.api_address},
            {"worker_address", addresses.worker_address},
            {"data_dir", line->options.data_dir}});
  std::printf("%s\n", lasp::ServingLine({{"api_address", addresses.api_address},
                                         {"worker_address", addresses.worker_address},
                                         {"health_address", addresses.health_address},
                                         {"metrics_address", addresses.metrics_address},
                                         {"console_address", addresses.console_address},
                                         {"data_dir", line->options.data_dir}})
                          .c_str());
  std::fflush(stdout);

  systemd.Ready();
  const int signal_number = AwaitSignal(signals, systemd);
  LASP_LOG(kInfo, "stopping", {{"signal", signal_number}});
  systemd.Stopping();
  (*server)->Stop();
  LASP_LOG(kInfo, "stopped");
  return 0;
}
