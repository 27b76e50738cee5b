// Who is connected to a port, and how many connections each may have.
//
// gRPC (1.51) neither counts its connections nor says when one ends, so the table asks the kernel:
// a connection lives as long as its descriptor is the socket that it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

struct ConnectionLimits {
  int all = 8'000;
  // From one address.
  int a_host = 1'000;
  // That one token calls over.
  int a_principal = 1'000;
};

// Thread-safe.
class ConnectionTable {
 public:
  // `on_refusal` is told the flag of a limit that was reached, from any thread; may be empty.
  ConnectionTable(const ConnectionLimits& limits, const Clock* clock,
                  std::function<void(const char* flag)> on_refusal)
      : limits_(limits), clock_(clock), on_refusal_(std::move(on_refusal)) {}

  // A connected socket, before gRPC gets it; `peer` is gRPC's name of the other end. It must be
  // closed with the error: RESOURCE_EXHAUSTED with reason TOO_MANY_CONNECTIONS.
  [[nodiscard]] absl::Status Add(int descriptor, const std::string& peer);

  // `principal` calls over the connection of `peer`. The same error where it does so over too many;
  // OK for a connection that is not in the table.
  absl::Status Use(const std::string& peer, absl::string_view principal);

  // Forgets the connections that have ended. What is at a limit does so itself.
  void Sweep();

  // As of the last sweep.
  size_t size() const;

 private:
  struct Connection {
    int descriptor = -1;
    // The kernel's name for the socket, which no other has.
    uint64_t cookie = 0;
    std::string host;
    std::set<std::string, std::less<>> principals;
  };

  using Connections = std::unordered_map<std::string, Connection>;
  using Counts = std::unordered_map<std::string, int>;

  void Forget(Connections::iterator connection) REQUIRES_LOCK(mutex_);
  absl::Status Refused(const char* flag, const std::string& who, int limit) const;

  const ConnectionLimits limits_;
  const Clock* const clock_;
  const std::function<void(const char*)> on_refusal_;
  mutable Mutex mutex_;
  Connections by_peer_ GUARDED_BY(mutex_);
  Counts by_host_ GUARDED_BY(mutex_);
  Counts by_principal_ GUARDED_BY(mutex_);
  absl::Duration last_sweep_ GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace lasp::server
