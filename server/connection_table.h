// Who is connected to a port, and how many connections each may have.
//
// gRPC (1.51) neither counts its connections nor says when one ends, so the table asks the kernel:
// a connection lives as long as its descriptor is the socket that it was. Nor does it bound how
// many calls a connection begins in a second, and those that their caller resets at once count
// towards no other limit of it (CVE-2023-44487, rapid reset), so that is done here too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

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
  // That one connection begins in a second, or at once: what --max_calls_a_second allows a token at
  // once fits in. One that goes beyond is hung up on.
  int calls_a_second = 2'000;
  // That one connection sends without beginning a call; 0 for no bound. gRPC bounds the headers of
  // a call by frame, not by call (CVE-2023-33953), counts them towards no quota, and keeps some of
  // them where the connection ends before they do.
  int64_t bytes_a_call = 0;
  // That all connections of one host send in a second, and four times as much at once; 0 for no
  // bound. Where requests fill gRPC's memory it closes connections, whosever they are: the host
  // that does so must be gone before. Those of its connections that sent are hung up on.
  int64_t host_bytes_a_second = 0;
  // For so long the host of a connection that was hung up on gets no new one.
  absl::Duration flood_ban = absl::Seconds(10);
};

// Thread-safe.
class ConnectionTable {
 public:
  // Hosts that are remembered as banned: others beyond are not.
  static constexpr size_t kMaxBanned = 4'096;

  // `on_refusal` is told the flag of a limit that was reached, from any thread; may be empty.
  ConnectionTable(const ConnectionLimits& limits, const Clock* clock,
                  std::function<void(const char* flag)> on_refusal)
      : limits_(limits), clock_(clock), on_refusal_(std::move(on_refusal)) {}

  // A connected socket, before gRPC gets it; `peer` is gRPC's name of the other end. It must be
  // closed with the error: RESOURCE_EXHAUSTED with reason TOO_MANY_CONNECTIONS, or
  // FLOODED where a connection of the same host has begun too many calls a moment ago.
  [[nodiscard]] absl::Status Add(int descriptor, const std::string& peer);

  // `principal` calls over the connection of `peer`. The same error where it does so over too many;
  // OK for a connection that is not in the table.
  absl::Status Use(const std::string& peer, absl::string_view principal);

  // The connection of `peer` has begun a call, which has not ended yet: as long, gRPC keeps the
  // descriptor. Hangs up where these are too many. Nothing for a connection not in the table.
  void BeginCall(const std::string& peer);

  // Forgets the connections that have ended, and hangs up on those that send without end. What is
  // at a limit does the former itself.
  void Sweep();
  // The same of the next part of them, so that calls do not wait for thousands: comes round four
  // times a second where it is called again after what it returns.
  absl::Duration SweepPart();

  // As of the last sweep.
  size_t size() const;

 private:
  struct Connection {
    int descriptor = -1;
    // The kernel's name for the socket, which no other has.
    uint64_t cookie = 0;
    std::string host;
    std::set<std::string, std::less<>> principals;
    // Calls that it may begin, as of `filled_at`.
    double calls = 0;
    absl::Duration filled_at;
    bool hung_up = false;
    // Since it began a call, as far as the last sweep knows.
    bool has_begun_call = false;
    uint64_t bytes_at_call = 0;
    // As of the last sweep, and whether there were more than at the one before.
    uint64_t bytes = 0;
    bool sends = false;
  };

  // What a host may send, as of `filled_at`.
  struct Allowance {
    double bytes = 0;
    absl::Duration filled_at;
  };

  // One connection as a sweep finds it.
  struct Looked {
    std::string peer;
    int descriptor = -1;
    uint64_t cookie = 0;
    bool ended = false;
    uint64_t bytes = 0;
    // Since the sweep before.
    uint64_t new_bytes = 0;
  };

  using Connections = std::map<std::string, Connection, std::less<>>;
  using Counts = std::unordered_map<std::string, int>;

  void Forget(Connections::iterator connection) REQUIRES_LOCK(mutex_);
  absl::Status Refused(const char* flag, const std::string& who, int limit) const;
  // Shuts the connection and bans its host, which is the result where that is news.
  std::string HangUp(const char* flag, Connection* connection) REQUIRES_LOCK(mutex_);
  // As of a sweep: the host to tell of, where the connection has sent too much.
  std::string CountBytes(uint64_t bytes, Connection* connection) REQUIRES_LOCK(mutex_);
  // Hangs up on what hosts have that sent too much: these hosts.
  std::vector<std::string> CountHostBytes(const std::vector<Looked>& looked) REQUIRES_LOCK(mutex_);
  static Looked At(const Connections::value_type& connection);
  // Asks the kernel about them, and does what follows.
  void LookAt(std::vector<Looked> connections);
  // The host to tell of, where a call is one too many.
  std::string CountCall(const std::string& peer);
  bool IsBanned(const std::string& host) REQUIRES_LOCK(mutex_);
  void Ban(const std::string& host) REQUIRES_LOCK(mutex_);

  const ConnectionLimits limits_;
  const Clock* const clock_;
  const std::function<void(const char*)> on_refusal_;
  mutable Mutex mutex_;
  Connections by_peer_ GUARDED_BY(mutex_);
  Counts by_host_ GUARDED_BY(mutex_);
  Counts by_principal_ GUARDED_BY(mutex_);
  // Of hosts that have sent something of late.
  std::unordered_map<std::string, Allowance> allowances_ GUARDED_BY(mutex_);
  // Until when, by Clock::Monotonic.
  std::unordered_map<std::string, absl::Duration> banned_ GUARDED_BY(mutex_);
  absl::Duration last_sweep_ GUARDED_BY(mutex_) = -absl::InfiniteDuration();
  // Where the next part begins: behind this one.
  std::string swept_to_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
