// What a service tells systemd, sd_notify(3): one datagram a state, without linking libsystemd.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp {

// Tells nothing where systemd did not start this process as a service of Type=notify. Thread-safe.
class SystemdNotifier {
 public:
  // Reads $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID and removes them, so that children do
  // not speak for this process. Call before the first thread.
  static SystemdNotifier FromEnvironment();

  // `watchdog`: systemd ends the service when it heard nothing for so long.
  SystemdNotifier(std::string socket, absl::Duration watchdog);

  // READY=1: it serves. STOPPING=1: it is about to end. WATCHDOG=1: it is alive.
  void Ready() const { Send("READY=1"); }

  void Stopping() const { Send("STOPPING=1"); }

  void Alive() const { Send("WATCHDOG=1"); }

  // How often to call Alive, half of what systemd allows; infinite where nothing waits for it.
  absl::Duration alive_interval() const { return alive_interval_; }

 private:
  // Never blocks; what cannot be sent is left out: systemd decides what follows from silence.
  void Send(absl::string_view state) const;

  // A path, or a name in the abstract namespace after '@'; empty for none.
  const std::string socket_;
  const absl::Duration alive_interval_;
};

}  // namespace lasp
