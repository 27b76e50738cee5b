#include "server/connection_table.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "server/principal.h"
#include "server/try_again.h"

namespace lasp::server {
namespace {

// A flood of refused connections must not make each of them cost a walk through all the others.
constexpr absl::Duration kMinSweepInterval = absl::Milliseconds(50);

// 0 where the descriptor is no socket, or none at all any more.
uint64_t SocketCookie(int descriptor) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

// What has come over the connection so far; 0 where the system does not say.
uint64_t BytesReceived(int descriptor) {
  tcp_info info{};
  socklen_t size = sizeof info;
  return getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_bytes_received
                                                                          : 0;
}

template <typename Counts>
int CountOf(const Counts& counts, const std::string& name) {
  const auto found = counts.find(name);
  return found == counts.end() ? 0 : found->second;
}

template <typename Counts>
void CountDown(Counts* counts, const std::string& name) {
  const auto found = counts->find(name);
  if (found != counts->end() && --found->second == 0) {
    counts->erase(found);
  }
}

}  // namespace

absl::Status ConnectionTable::Refused(const char* flag, const std::string& who, int limit) const {
  if (on_refusal_) {
    on_refusal_(flag);
  }
  return TryAgainLater(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat(who, " has ", limit, " connections, all that the coordinator's --", flag,
                   " allows: close some"),
      "TOO_MANY_CONNECTIONS", absl::Seconds(1));
}

absl::Status ConnectionTable::Add(int descriptor, const std::string& peer) {
  const std::string host = PrincipalOfPeer(peer);
  const uint64_t cookie = SocketCookie(descriptor);
  if (cookie == 0) {
    return absl::OkStatus();  // a system that does not say: better no limit than no connection
  }
  bool all_taken = false;
  for (const bool swept : {false, true}) {
    {
      MutexLock lock(&mutex_);
      if (IsBanned(host)) {
        if (on_refusal_) {
          on_refusal_("flood_ban");
        }
        return TryAgainLater(absl::StatusCode::kResourceExhausted,
                             absl::StrCat(host, " has begun too many calls over one connection"),
                             "FLOODED", limits_.flood_ban);
      }
      // The same address and port again: the connection before has ended.
      if (const auto before = by_peer_.find(peer); before != by_peer_.end()) {
        Forget(before);
      }
      all_taken = by_peer_.size() >= static_cast<size_t>(limits_.all);
      if (!all_taken && CountOf(by_host_, host) < limits_.a_host) {
        ++by_host_[host];
        by_peer_[peer] = {.descriptor = descriptor,
                          .cookie = cookie,
                          .host = host,
                          .principals = {},
                          .calls = static_cast<double>(limits_.calls_a_second),
                          .filled_at = clock_->Monotonic()};
        return absl::OkStatus();
      }
    }
    if (!swept) {
      Sweep();
    }
  }
  return all_taken ? Refused("max_connections", "the port", limits_.all)
                   : Refused("max_connections_a_host", host, limits_.a_host);
}

absl::Status ConnectionTable::Use(const std::string& peer, absl::string_view principal) {
  const std::string name(principal);
  for (const bool swept : {false, true}) {
    {
      MutexLock lock(&mutex_);
      const auto found = by_peer_.find(peer);
      if (found == by_peer_.end() ||
          found->second.principals.find(principal) != found->second.principals.end()) {
        return absl::OkStatus();
      }
      if (CountOf(by_principal_, name) < limits_.a_principal) {
        found->second.principals.insert(name);
        ++by_principal_[name];
        return absl::OkStatus();
      }
    }
    if (!swept) {
      Sweep();
    }
  }
  return Refused("max_connections_a_principal", name, limits_.a_principal);
}

void ConnectionTable::BeginCall(const std::string& peer) {
  if (const std::string flooding = CountCall(peer); !flooding.empty()) {
    LASP_LOG(kWarning, "hung up on a connection that begins calls without end",
             {{"host", flooding}, {"max_connection_calls_a_second", limits_.calls_a_second}});
  }
}

std::string ConnectionTable::CountCall(const std::string& peer) {
  MutexLock lock(&mutex_);
  const auto found = by_peer_.find(peer);
  if (found == by_peer_.end() || found->second.hung_up) {
    return "";
  }
  Connection& connection = found->second;
  connection.has_begun_call = true;
  const absl::Duration now = clock_->Monotonic();
  const double came_back =
      absl::ToDoubleSeconds(now - connection.filled_at) * limits_.calls_a_second;
  connection.calls = std::min<double>(limits_.calls_a_second, connection.calls + came_back) - 1;
  connection.filled_at = now;
  // The cookie: a caller may come again from the same port while calls of its connection before
  // end.
  if (connection.calls >= 0 || SocketCookie(connection.descriptor) != connection.cookie) {
    return "";
  }
  return HangUp("max_connection_calls_a_second", &connection);
}

std::string ConnectionTable::HangUp(const char* flag, Connection* connection) {
  connection->hung_up = true;
  shutdown(connection->descriptor, SHUT_RDWR);
  if (on_refusal_) {
    on_refusal_(flag);
  }
  const bool is_news = !IsBanned(connection->host);
  Ban(connection->host);
  return is_news ? connection->host : "";
}

bool ConnectionTable::IsBanned(const std::string& host) {
  const auto found = banned_.find(host);
  return found != banned_.end() && clock_->Monotonic() < found->second;
}

void ConnectionTable::Ban(const std::string& host) {
  const absl::Duration now = clock_->Monotonic();
  if (banned_.size() >= kMaxBanned) {
    std::erase_if(banned_, [now](const auto& entry) { return now >= entry.second; });
  }
  if (limits_.flood_ban > absl::ZeroDuration() && banned_.size() < kMaxBanned) {
    banned_[host] = now + limits_.flood_ban;
  }
}

void ConnectionTable::Forget(Connections::iterator connection) {
  CountDown(&by_host_, connection->second.host);
  for (const std::string& principal : connection->second.principals) {
    CountDown(&by_principal_, principal);
  }
  by_peer_.erase(connection);
}

// The kernel is asked without the lock: calls do not wait for it.
void ConnectionTable::Sweep() {
  std::vector<Looked> present;
  {
    MutexLock lock(&mutex_);
    const absl::Duration now = clock_->Monotonic();
    if (now - last_sweep_ < kMinSweepInterval) {
      return;
    }
    last_sweep_ = now;
    present.reserve(by_peer_.size());
    for (const auto& [peer, connection] : by_peer_) {
      present.push_back(
          {.peer = peer, .descriptor = connection.descriptor, .cookie = connection.cookie});
    }
  }
  for (Looked& connection : present) {
    connection.bytes = limits_.bytes_a_call == 0 && limits_.host_bytes_a_second == 0
                           ? 0
                           : BytesReceived(connection.descriptor);
    connection.ended = SocketCookie(connection.descriptor) != connection.cookie;
  }
  std::vector<std::string> flooding;
  std::vector<std::string> pouring;
  {
    MutexLock lock(&mutex_);
    for (Looked& looked : present) {
      const auto found = by_peer_.find(looked.peer);
      if (found == by_peer_.end() || found->second.cookie != looked.cookie) {
        continue;
      }
      if (looked.ended) {
        Forget(found);
      } else if (std::string host = CountBytes(looked.bytes, &found->second); !host.empty()) {
        flooding.push_back(std::move(host));
      } else {
        looked.new_bytes = looked.bytes - std::exchange(found->second.bytes, looked.bytes);
      }
    }
    if (limits_.host_bytes_a_second > 0) {
      pouring = CountHostBytes(present);
    }
  }
  for (const std::string& host : pouring) {
    LASP_LOG(kWarning, "hung up on a host that sends too much",
             {{"host", host}, {"max_host_bytes_a_second", limits_.host_bytes_a_second}});
  }
  for (const std::string& host : flooding) {
    LASP_LOG(kWarning, "hung up on a connection that sends without beginning a call",
             {{"host", host}, {"bytes", limits_.bytes_a_call}});
  }
}

std::string ConnectionTable::CountBytes(uint64_t bytes, Connection* connection) {
  if (std::exchange(connection->has_begun_call, false)) {
    connection->bytes_at_call = bytes;
  }
  // gRPC may have closed the descriptor since, and another socket have it: hence the cookie again.
  const bool too_many =
      bytes > connection->bytes_at_call + static_cast<uint64_t>(limits_.bytes_a_call) &&
      limits_.bytes_a_call > 0 && !connection->hung_up &&
      SocketCookie(connection->descriptor) == connection->cookie;
  return too_many ? HangUp("max_message_bytes", connection) : "";
}

std::vector<std::string> ConnectionTable::CountHostBytes(const std::vector<Looked>& present) {
  const absl::Duration now = clock_->Monotonic();
  const double rate = static_cast<double>(limits_.host_bytes_a_second);
  const double most = 4 * rate;
  std::vector<std::string> over;
  for (const Looked& looked : present) {
    const auto found = by_peer_.find(looked.peer);
    if (looked.new_bytes == 0 || found == by_peer_.end()) {
      continue;
    }
    const auto [place, is_new] =
        allowances_.try_emplace(found->second.host, Allowance{.bytes = most, .filled_at = now});
    Allowance& allowance = place->second;
    const double came_back = absl::ToDoubleSeconds(now - allowance.filled_at) * rate;
    const double had = std::min(most, allowance.bytes + came_back);
    allowance = {.bytes = had - static_cast<double>(looked.new_bytes), .filled_at = now};
    if (had >= 0 && allowance.bytes < 0) {
      over.push_back(found->second.host);
    }
  }
  for (const Looked& looked : present) {
    const auto found = by_peer_.find(looked.peer);
    if (looked.new_bytes > 0 && found != by_peer_.end() && !found->second.hung_up &&
        std::find(over.begin(), over.end(), found->second.host) != over.end() &&
        SocketCookie(found->second.descriptor) == found->second.cookie) {
      HangUp("max_host_bytes_a_second", &found->second);
    }
  }
  for (const std::string& host : over) {
    allowances_.erase(host);
  }
  // Whoever has been silent for long has everything again.
  std::erase_if(allowances_, [now](const auto& entry) {
    return now - entry.second.filled_at > absl::Seconds(10);
  });
  return over;
}

size_t ConnectionTable::size() const {
  MutexLock lock(&mutex_);
  return by_peer_.size();
}

}  // namespace lasp::server
