#include "server/connection_acceptor.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"

namespace lasp::server {
namespace {

constexpr int kBacklog = 4'096;
// Two thousand connections a second, few at once: what comes all at once is served, and ends by its
// timeout, bit by bit, and calls beside it need not wait.
constexpr int kTakenAtATime = 8;
constexpr absl::Duration kBetween = absl::Milliseconds(4);
// The kernel doubles it. What lies there when a connection breaks gRPC 1.51 reads first, and where
// that is megabytes of headers it forgets to free some.
constexpr int kReceiveBytes = 128 << 10;
// Until descriptors or memory may be there again.
constexpr absl::Duration kExhausted = absl::Milliseconds(100);
constexpr absl::Duration kMillisecond = absl::Milliseconds(1);

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

uint16_t* PortIn(sockaddr_storage* address) {
  return address->ss_family == AF_INET6 ? &reinterpret_cast<sockaddr_in6*>(address)->sin6_port
                                        : &reinterpret_cast<sockaddr_in*>(address)->sin_port;
}

// What `host`, without brackets, stands for; no address twice.
absl::StatusOr<std::vector<sockaddr_storage>> Resolve(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list); error != 0) {
    return absl::UnavailableError(gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> owner(list);
  std::vector<sockaddr_storage> addresses;
  for (; list != nullptr; list = list->ai_next) {
    sockaddr_storage address{};
    std::memcpy(&address, list->ai_addr, list->ai_addrlen);
    const bool known = std::any_of(addresses.begin(), addresses.end(), [&](const auto& other) {
      return std::memcmp(&other, &address, sizeof address) == 0;
    });
    if (!known) {
      addresses.push_back(address);
    }
  }
  return addresses;
}

// Invalid, with errno set, where it cannot be.
UniqueFd ListenOn(const sockaddr_storage& address, bool both_families) {
  UniqueFd listener(
      socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  const int on = 1;
  const int receive_bytes = kReceiveBytes;
  const int ipv6_only = both_families ? 0 : 1;
  const bool is_ipv6 = address.ss_family == AF_INET6;
  const bool listens = listener.valid() &&
                       setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                       setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes,
                                  sizeof receive_bytes) == 0 &&
                       (!is_ipv6 || setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY,
                                               &ipv6_only, sizeof ipv6_only) == 0) &&
                       bind(listener.get(), reinterpret_cast<const sockaddr*>(&address),
                            is_ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)) == 0 &&
                       listen(listener.get(), kBacklog) == 0;
  if (!listens) {
    const int error = errno;
    listener = UniqueFd();
    errno = error;
  }
  return listener;
}

int PortOf(int descriptor) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(*PortIn(&address));
}

std::string ErrorText(int error) {
  return std::strerror(error);  // NOLINT(concurrency-mt-unsafe)
}

// gRPC's name for a peer.
std::string PeerName(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &ipv4.sin_addr, text.data(), text.size());
    return absl::StrCat("ipv4:", text.data(), ":", ntohs(ipv4.sin_port));
  }
  const auto& ipv6 = reinterpret_cast<const sockaddr_in6&>(address);
  if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr)) {
    inet_ntop(AF_INET, &ipv6.sin6_addr.s6_addr[12], text.data(), text.size());
    return absl::StrCat("ipv4:", text.data(), ":", ntohs(ipv6.sin6_port));
  }
  inet_ntop(AF_INET6, &ipv6.sin6_addr, text.data(), text.size());
  return absl::StrCat("ipv6:%5B", text.data(), "%5D:", ntohs(ipv6.sin6_port));
}

bool IsOfTheConnection(int error) {
  return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN ||
         error == EHOSTDOWN || error == EHOSTUNREACH || error == ENETUNREACH;
}

}  // namespace

ConnectionAcceptor::ConnectionAcceptor(std::vector<UniqueFd> listeners, int port)
    : listeners_(std::move(listeners)), port_(port), stop_(eventfd(0, EFD_CLOEXEC)) {}

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Listen(
    const std::string& flag, const ListenAddress& address) {
  const absl::string_view bare = absl::StripSuffix(absl::StripPrefix(address.host, "["), "]");
  const bool wildcard = bare == "0.0.0.0" || bare == "::";
  // Of a wildcard the first that works, for there are machines without IPv6; of a name all.
  std::vector<sockaddr_storage> addresses;
  for (const std::string& host :
       wildcard ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector{std::string(bare)}) {
    const auto found = Resolve(host);
    if (found.ok()) {
      addresses.insert(addresses.end(), found->begin(), found->end());
    } else if (!wildcard) {
      return PortTaken(flag, address, found.status().message());
    }
  }
  std::vector<UniqueFd> listeners;
  int port = address.port;
  int error = 0;
  for (sockaddr_storage& entry : addresses) {
    *PortIn(&entry) = htons(static_cast<uint16_t>(port));
    UniqueFd listener = ListenOn(entry, wildcard);
    if (!listener.valid()) {
      error = errno;
      if (error == EADDRINUSE) {
        listeners.clear();
        break;
      }
      continue;
    }
    port = PortOf(listener.get());
    listeners.push_back(std::move(listener));
    if (wildcard) {
      break;
    }
  }
  if (listeners.empty()) {
    return PortTaken(flag, address, ErrorText(error));
  }
  return std::unique_ptr<ConnectionAcceptor>(new ConnectionAcceptor(std::move(listeners), port));
}

ConnectionAcceptor::~ConnectionAcceptor() { Stop(); }

void ConnectionAcceptor::Start(ConnectionTable* table, absl::Duration unacknowledged_timeout,
                               Handler handler) {
  table_ = table;
  user_timeout_ms_ = static_cast<int>(absl::ToInt64Milliseconds(unacknowledged_timeout));
  handler_ = std::move(handler);
  thread_ = std::thread([this] { Run(); });
}

void ConnectionAcceptor::Stop() {
  const uint64_t one = 1;
  if (thread_.joinable() && write(stop_.get(), &one, sizeof one) == sizeof one) {
    thread_.join();
  }
  // Who comes from here on is refused by the kernel.
  listeners_.clear();
}

void ConnectionAcceptor::Run() {
  std::vector<pollfd> watched = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  watched.reserve(1 + listeners_.size());
  for (const UniqueFd& listener : listeners_) {
    watched.push_back({.fd = listener.get(), .events = POLLIN, .revents = 0});
  }
  const auto now = [] { return SystemClock().Monotonic(); };
  absl::Duration next_accept = now();
  absl::Duration next_sweep = now();
  while (true) {
    const bool rests = now() < next_accept;
    const absl::Duration wait = (rests ? std::min(next_accept, next_sweep) : next_sweep) - now();
    // Rounded up: not to find then that it is too early.
    const int wait_ms = static_cast<int>(
        absl::ToInt64Milliseconds(absl::Ceil(std::max(wait, absl::ZeroDuration()), kMillisecond)));
    if (poll(watched.data(), rests ? 1 : watched.size(), wait_ms) < 0) {
      if (errno == EINTR) {
        continue;
      }
      return;
    }
    if ((watched[0].revents & POLLIN) != 0) {
      return;
    }
    for (size_t i = 1; i < watched.size() && !rests; ++i) {
      if (watched[i].revents != 0) {
        next_accept = std::max(next_accept, now() + Accept(watched[i].fd));
      }
    }
    if (now() >= next_sweep) {
      next_sweep = now() + table_->SweepPart();
    }
  }
}

absl::Duration ConnectionAcceptor::Accept(int listener) {
  for (int i = 0; i < kTakenAtATime; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    UniqueFd connection(accept4(listener, reinterpret_cast<sockaddr*>(&address), &size,
                                SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection.valid()) {
      if (errno == EAGAIN) {
        return absl::ZeroDuration();
      }
      if (IsOfTheConnection(errno)) {
        continue;
      }
      LASP_LOG(kWarning, "cannot take a connection",
               {{"port", port_}, {"error", ErrorText(errno)}});
      return kExhausted;
    }
    if (const absl::Status added = table_->Add(connection.get(), PeerName(address)); !added.ok()) {
      // Said to the log alone: nothing can be said to a peer before its handshake.
      LASP_LOG(kDebug, "hung up on a connection", {{"reason", added.message()}});
      continue;
    }
    const int on = 1;
    setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(connection.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms_,
               sizeof user_timeout_ms_);
    handler_(listener, std::move(connection));
  }
  return kBetween;
}

}  // namespace lasp::server
