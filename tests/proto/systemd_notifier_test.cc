#include "proto/rpc/systemd_notifier.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_directory.h"

namespace lasp {
namespace {

// systemd's end of the socket.
class Listener {
 public:
  // '@' for the abstract namespace, as in $NOTIFY_SOCKET.
  explicit Listener(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    }
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), size), 0);
  }

  ~Listener() { close(fd_); }

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // What came first and was not yet read; empty for nothing.
  std::string Next() const {
    char buffer[256];
    const ssize_t size = recv(fd_, buffer, sizeof(buffer), MSG_DONTWAIT);
    return size < 0 ? "" : std::string(buffer, static_cast<size_t>(size));
  }

 private:
  const int fd_;
};

void SetVariable(const char* name, const std::string& value) {
  setenv(name, value.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
}

TEST(SystemdNotifier, TellsEachStateInOneDatagram) {
  const testing::TempDirectory folder;
  const std::string path = folder.Join("notify");
  const Listener listener(path);
  const SystemdNotifier notifier(path, absl::Seconds(30));
  notifier.Ready();
  notifier.Alive();
  notifier.Stopping();
  EXPECT_EQ(listener.Next(), "READY=1");
  EXPECT_EQ(listener.Next(), "WATCHDOG=1");
  EXPECT_EQ(listener.Next(), "STOPPING=1");
  EXPECT_EQ(listener.Next(), "");
  EXPECT_EQ(notifier.alive_interval(), absl::Seconds(15));
}

TEST(SystemdNotifier, KnowsTheAbstractNamespace) {
  const std::string name = absl::StrCat("@lasp-systemd-notifier-test-", getpid());
  const Listener listener(name);
  SystemdNotifier(name, absl::InfiniteDuration()).Ready();
  EXPECT_EQ(listener.Next(), "READY=1");
}

TEST(SystemdNotifier, TakesItsEnvironmentAway) {
  const testing::TempDirectory folder;
  const std::string path = folder.Join("notify");
  const Listener listener(path);
  SetVariable("NOTIFY_SOCKET", path);
  SetVariable("WATCHDOG_USEC", "20000000");
  SetVariable("WATCHDOG_PID", absl::StrCat(getpid()));
  const SystemdNotifier notifier = SystemdNotifier::FromEnvironment();
  EXPECT_EQ(notifier.alive_interval(), absl::Seconds(10));
  notifier.Ready();
  EXPECT_EQ(listener.Next(), "READY=1");
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    EXPECT_EQ(std::getenv(name), nullptr) << name;  // NOLINT(concurrency-mt-unsafe)
  }
}

TEST(SystemdNotifier, LeavesAnotherProcessesWatchdogAlone) {
  SetVariable("NOTIFY_SOCKET", "/nowhere/notify");
  SetVariable("WATCHDOG_USEC", "20000000");
  SetVariable("WATCHDOG_PID", "1");
  EXPECT_EQ(SystemdNotifier::FromEnvironment().alive_interval(), absl::InfiniteDuration());
}

TEST(SystemdNotifier, SaysNothingWhereNobodyListens) {
  const SystemdNotifier none = SystemdNotifier::FromEnvironment();
  none.Ready();
  EXPECT_EQ(none.alive_interval(), absl::InfiniteDuration());
  const SystemdNotifier gone("/nowhere/notify", absl::Seconds(1));
  gone.Ready();
  const SystemdNotifier too_long(std::string(300, 'x'), absl::Seconds(1));
  too_long.Ready();
}

}  // namespace
}  // namespace lasp
