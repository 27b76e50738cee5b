// A loopback address of this process alone.
//
// Gloo listens on one ephemeral port a pair and takes the first that connects for the peer. Other
// tests' clients knock for a while at ports whose owners have died, so on 127.0.0.1 one of them may
// come first.
#pragma once

#include <unistd.h>

#include <string>

namespace lasp::testing {

inline std::string OwnLoopbackAddress() {
  const int pid = getpid();
  return "127." + std::to_string(1 + pid / 62'500 % 250) + "." + std::to_string(pid / 250 % 250) +
         "." + std::to_string(1 + pid % 250);
}

}  // namespace lasp::testing
