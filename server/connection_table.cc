#include "server/connection_table.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>
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
// All parts in turn. Also how far a connection that sends without end comes before it is noticed.
constexpr absl::Duration kRound = absl::Milliseconds(250);
// Connections that are worth a part, and as many parts as there are at most: some hundred
// connections each, which take less than a millisecond.
constexpr size_t kPart = 64;
constexpr size_t kMostParts = 25;

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

ConnectionTable::Looked ConnectionTable::At(const Connections::value_type& connection) {
  return {.peer = connection.first,
          .descriptor = connection.second.descriptor,
          .cookie = connection.second.cookie};
}

void ConnectionTable::Sweep() {
  std::vector<Looked> all;
  {
    MutexLock lock(&mutex_);
    const absl::Duration now = clock_->Monotonic();
    if (now - last_sweep_ < kMinSweepInterval) {
      return;
    }
    last_sweep_ = now;
    all.reserve(by_peer_.size());
    std::transform(by_peer_.begin(), by_peer_.end(), std::back_inserter(all), At);
  }
  LookAt(std::move(all));
}

absl::Duration ConnectionTable::SweepPart() {
  std::vector<Looked> part;
  size_t parts = 1;
  {
    MutexLock lock(&mutex_);
    parts = std::clamp<size_t>(by_peer_.size() / kPart, 1, kMostParts);
    const size_t most = (by_peer_.size() + parts - 1) / parts;
    auto next = by_peer_.upper_bound(swept_to_);
    for (; next != by_peer_.end() && part.size() < most; ++next) {
      part.push_back(At(*next));
    }
    swept_to_ = next == by_peer_.end() ? "" : part.back().peer;
  }
  LookAt(std::move(part));
  return kRound / static_cast<int64_t>(parts);
}

// The kernel is asked without the lock: calls do not wait for it.
void ConnectionTable::LookAt(std::vector<Looked> connections) {
  for (Looked& connection : connections) {
    connection.bytes = limits_.bytes_a_call == 0 && limits_.host_bytes_a_second == 0
                           ? 0
                           : BytesReceived(connection.descriptor);
    connection.ended = SocketCookie(connection.descriptor) != connection.cookie;
  }
  std::vector<std::string> flooding;
  std::vector<std::string> pouring;
  {
    MutexLock lock(&mutex_);
    for (Looked& looked : connections) {
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
        found->second.sends = looked.new_bytes > 0;
      }
    }
    if (limits_.host_bytes_a_second > 0) {
      pouring = CountHostBytes(connections);
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

std::vector<std::string> ConnectionTable::CountHostBytes(const std::vector<Looked>& looked) {
  const absl::Duration now = clock_->Monotonic();
  const double rate = static_cast<double>(limits_.host_bytes_a_second);
  const double most = 4 * rate;
  std::vector<std::string> over;
  for (const Looked& one : looked) {
    const auto found = by_peer_.find(one.peer);
    if (one.new_bytes == 0 || found == by_peer_.end()) {
      continue;
    }
    const auto [place, is_new] =
        allowances_.try_emplace(found->second.host, Allowance{.bytes = most, .filled_at = now});
    Allowance& allowance = place->second;
    const double came_back = absl::ToDoubleSeconds(now - allowance.filled_at) * rate;
    const double had = std::min(most, allowance.bytes + came_back);
    allowance = {.bytes = had - static_cast<double>(one.new_bytes), .filled_at = now};
    if (had >= 0 && allowance.bytes < 0) {
      over.push_back(found->second.host);
    }
  }
  for (const std::string& host : over) {
    for (auto& [peer, connection] : by_peer_) {
      if (connection.host == host && connection.sends && !connection.hung_up &&
          SocketCookie(connection.descriptor) == connection.cookie) {
        HangUp("max_host_bytes_a_second", &connection);
      }
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
