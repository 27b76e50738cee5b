#include "proto/rpc/systemd_notifier.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"

namespace lasp {
namespace {

// Before the first thread, so touching the environment is safe.
std::string TakeVariable(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  std::string taken = value == nullptr ? "" : value;
  unsetenv(name);  // NOLINT(concurrency-mt-unsafe)
  return taken;
}

}  // namespace

SystemdNotifier SystemdNotifier::FromEnvironment() {
  std::string socket = TakeVariable("NOTIFY_SOCKET");
  const std::string microseconds = TakeVariable("WATCHDOG_USEC");
  const std::string pid = TakeVariable("WATCHDOG_PID");
  int64_t watchdog = 0;
  int64_t watched = 0;
  const bool ours = pid.empty() || (absl::SimpleAtoi(pid, &watched) && watched == getpid());
  if (!ours || !absl::SimpleAtoi(microseconds, &watchdog) || watchdog <= 0) {
    return {std::move(socket), absl::InfiniteDuration()};
  }
  return {std::move(socket), absl::Microseconds(watchdog)};
}

SystemdNotifier::SystemdNotifier(std::string socket, absl::Duration watchdog)
    : socket_(std::move(socket)),
      alive_interval_(socket_.empty() ? absl::InfiniteDuration() : watchdog / 2) {}

void SystemdNotifier::Send(absl::string_view state) const {
  sockaddr_un address{};
  if (socket_.empty() || socket_.size() >= sizeof(address.sun_path)) {
    return;
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (address.sun_path[0] == '@') {
    address.sun_path[0] = '\0';
  }
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return;
  }
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  // NOLINTNEXTLINE(bugprone-unused-return-value): nobody to tell
  (void)sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), size);
  close(fd);
}

}  // namespace lasp
