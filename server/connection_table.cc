#include "server/connection_table.h"

#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
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
  const char* flag = nullptr;
  {
    MutexLock lock(&mutex_);
    const auto all = static_cast<size_t>(limits_.all);
    if (by_peer_.size() >= all) {
      SweepLocked();
    }
    if (by_peer_.size() >= all) {
      flag = "max_connections";
    } else if (!HasRoom(by_host_, host, limits_.a_host)) {
      flag = "max_connections_a_host";
    } else {
      // The same address and port again: the connection before has ended.
      if (const auto before = by_peer_.find(peer); before != by_peer_.end()) {
        for (const std::string& principal : before->second.principals) {
          CountDown(&by_principal_, principal);
        }
        CountDown(&by_host_, host);
        by_peer_.erase(before);
      }
      ++by_host_[host];
      by_peer_[peer] = {.descriptor = descriptor,
                        .cookie = cookie,
                        .host = host,
                        .principals = {}};
      return absl::OkStatus();
    }
  }
  return flag == std::string("max_connections") ? Refused(flag, "the port", limits_.all)
                                                : Refused(flag, host, limits_.a_host);
}

absl::Status ConnectionTable::Use(const std::string& peer, absl::string_view principal) {
  const std::string name(principal);
  {
    MutexLock lock(&mutex_);
    auto found = by_peer_.find(peer);
    if (found == by_peer_.end() ||
        found->second.principals.find(principal) != found->second.principals.end()) {
      return absl::OkStatus();
    }
    if (HasRoom(by_principal_, name, limits_.a_principal)) {
      found = by_peer_.find(peer);  // a sweep may have found it ended
      if (found != by_peer_.end()) {
        found->second.principals.insert(name);
        ++by_principal_[name];
      }
      return absl::OkStatus();
    }
  }
  return Refused("max_connections_a_principal", name, limits_.a_principal);
}

bool ConnectionTable::HasRoom(const Counts& counts, const std::string& name, int limit) {
  const auto has = [&] {
    const auto found = counts.find(name);
    return found == counts.end() || found->second < limit;
  };
  if (has()) {
    return true;
  }
  SweepLocked();
  return has();
}

void ConnectionTable::Sweep() {
  MutexLock lock(&mutex_);
  SweepLocked();
}

void ConnectionTable::SweepLocked() {
  const absl::Duration now = clock_->Monotonic();
  if (now - last_sweep_ < kMinSweepInterval) {
    return;
  }
  last_sweep_ = now;
  for (auto it = by_peer_.begin(); it != by_peer_.end();) {
    const Connection& connection = it->second;
    if (SocketCookie(connection.descriptor) == connection.cookie) {
      ++it;
      continue;
    }
    CountDown(&by_host_, connection.host);
    for (const std::string& principal : connection.principals) {
      CountDown(&by_principal_, principal);
    }
    it = by_peer_.erase(it);
  }
}

size_t ConnectionTable::size() const {
  MutexLock lock(&mutex_);
  return by_peer_.size();
}

}  // namespace lasp::server
