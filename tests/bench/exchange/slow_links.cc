#include "tests/bench/exchange/slow_links.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"

namespace lasp::bench {
namespace {

using Clock = std::chrono::steady_clock;

// What leaves a rank at once: several wires share its link piece by piece.
constexpr size_t kPieceBytes = 16384;

absl::Status Failed(absl::string_view action) { return absl::ErrnoToStatus(errno, action); }

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

absl::StatusOr<UniqueFd> Socket() {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!socket.valid() ||
      ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    return Failed("making a socket");
  }
  return socket;
}

// A rank's address is three fields, each behind its length in two bytes: a secret, a host, a port.
struct Address {
  std::array<std::string, 3> fields;

  static absl::StatusOr<Address> Parse(absl::string_view blob) {
    Address address;
    for (std::string& field : address.fields) {
      const size_t size = blob.size() < 2 ? blob.size()
                                          : static_cast<unsigned char>(blob[0]) +
                                                256U * static_cast<unsigned char>(blob[1]);
      if (blob.size() < 2 + size) {
        return absl::InternalError("a rank's address is not what it was when this was written");
      }
      field = std::string(blob.substr(2, size));
      blob.remove_prefix(2 + size);
    }
    return address;
  }

  std::string ToBlob() const {
    std::string blob;
    for (const std::string& field : fields) {
      blob.push_back(static_cast<char>(field.size() & 0xff));
      blob.push_back(static_cast<char>((field.size() >> 8) & 0xff));
      blob += field;
    }
    return blob;
  }
};

struct Piece {
  Clock::time_point due;
  std::string bytes;
};

// One direction of a connection.
struct Wire {
  int sender = 0;
  int from = -1;
  int to = -1;
  std::deque<Piece> pieces = {};
  bool ended = false;
};

// Who dials whom, until they do.
struct Gate {
  int dialer = 0;
  int dialed = 0;
  uint16_t port = 0;  // of the rank that is dialed
  UniqueFd listener = UniqueFd();
};

class Relay final : public SlowLinks {
 public:
  Relay(int ranks, const LinkSpeed& speed, UniqueFd wake)
      : speed_(speed),
        latency_(absl::ToChronoNanoseconds(speed.latency)),
        free_(static_cast<size_t>(ranks), Clock::now()),
        wake_(std::move(wake)),
        thread_([this] { Carry(); }) {}

  ~Relay() override {
    stopping_ = true;
    Wake();
    thread_.join();
  }

  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  absl::StatusOr<std::vector<std::string>> Route(
      int rank, const std::vector<std::string>& addresses) override {
    std::vector<std::string> routed = addresses;
    // The higher rank dials.
    for (int peer = 0; peer < rank; ++peer) {
      LASP_ASSIGN_OR_RETURN(Address address, Address::Parse(addresses[peer]));
      int port = 0;
      if (!absl::SimpleAtoi(address.fields[2], &port)) {
        return absl::InternalError("a rank's address has no port");
      }
      Gate gate{.dialer = rank, .dialed = peer, .port = static_cast<uint16_t>(port)};
      LASP_ASSIGN_OR_RETURN(gate.listener, Socket());
      sockaddr_in at = Loopback(0);
      socklen_t size = sizeof at;
      if (::bind(gate.listener.get(), reinterpret_cast<sockaddr*>(&at), size) != 0 ||
          ::listen(gate.listener.get(), 8) != 0 ||
          ::getsockname(gate.listener.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0) {
        return Failed("listening for a rank");
      }
      address.fields[1] = "127.0.0.1";
      address.fields[2] = absl::StrCat(ntohs(at.sin_port));
      routed[peer] = address.ToBlob();
      MutexLock lock(&mutex_);
      gates_.push_back(std::move(gate));
    }
    Wake();
    return routed;
  }

 private:
  void Wake() const {
    const uint64_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
  }

  void Carry() {
    while (!stopping_) {
      std::vector<pollfd> polls = Polls();
      const Clock::duration wait = UntilNext();
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
      const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (wait - seconds).count()};
      if (::ppoll(polls.data(), polls.size(), &timeout, nullptr) < 0 && errno != EINTR) {
        return;
      }
      uint64_t count = 0;
      if (polls[0].revents != 0) {
        (void)!read(wake_.get(), &count, sizeof count);
      }
      Deliver();
      for (size_t i = 0; i < wires_.size(); ++i) {
        if ((polls[1 + i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
          Take(&wires_[i]);
        }
      }
      Accept();
    }
  }

  // The wake-up, each wire's end, each gate.
  std::vector<pollfd> Polls() {
    std::vector<pollfd> polls = {{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    for (const Wire& wire : wires_) {
      polls.push_back({.fd = wire.ended ? -1 : wire.from, .events = POLLIN, .revents = 0});
    }
    MutexLock lock(&mutex_);
    for (const Gate& gate : gates_) {
      polls.push_back({.fd = gate.listener.get(), .events = POLLIN, .revents = 0});
    }
    return polls;
  }

  Clock::duration UntilNext() const {
    Clock::time_point next = Clock::now() + std::chrono::milliseconds(200);
    for (const Wire& wire : wires_) {
      if (!wire.pieces.empty()) {
        next = std::min(next, wire.pieces.front().due);
      }
    }
    return std::max(next - Clock::now(), Clock::duration::zero());
  }

  void Deliver() {
    for (Wire& wire : wires_) {
      const Clock::time_point now = Clock::now();
      while (!wire.pieces.empty() && wire.pieces.front().due <= now) {
        std::string& bytes = wire.pieces.front().bytes;
        const ssize_t sent =
            ::send(wire.to, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == static_cast<ssize_t>(bytes.size()) || bytes.empty()) {
          if (bytes.empty()) {
            ::shutdown(wire.to, SHUT_WR);
          }
          wire.pieces.pop_front();
          continue;
        }
        if (sent > 0) {
          bytes.erase(0, static_cast<size_t>(sent));
        }
        // A full receiver is tried again soon; to one that is gone nothing more goes.
        if (sent < 0 && errno != EAGAIN) {
          wire.pieces.clear();
          wire.ended = true;
        } else {
          wire.pieces.front().due = now + std::chrono::microseconds(200);
        }
        break;
      }
    }
  }

  void Take(Wire* wire) {
    std::string bytes(kPieceBytes, '\0');
    const ssize_t count = ::recv(wire->from, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
      return;
    }
    wire->ended = count <= 0;
    bytes.resize(count > 0 ? static_cast<size_t>(count) : 0);
    Clock::time_point& free = free_[static_cast<size_t>(wire->sender)];
    const std::chrono::duration<double> takes(static_cast<double>(bytes.size()) /
                                              speed_.bytes_per_second);
    free = std::max(free, Clock::now()) + std::chrono::duration_cast<Clock::duration>(takes);
    wire->pieces.push_back({.due = free + latency_, .bytes = std::move(bytes)});
  }

  void Accept() {
    MutexLock lock(&mutex_);
    for (auto gate = gates_.begin(); gate != gates_.end();) {
      pollfd waiting{.fd = gate->listener.get(), .events = POLLIN, .revents = 0};
      if (::poll(&waiting, 1, 0) != 1) {
        ++gate;
        continue;
      }
      UniqueFd dialer(::accept4(gate->listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      absl::StatusOr<UniqueFd> dialed = Socket();
      const sockaddr_in at = Loopback(gate->port);
      // Nobody is told where this fails: the ranks say that they have not met.
      if (dialer.valid() && dialed.ok() &&
          ::connect(dialed->get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) {
        const int on = 1;
        ::setsockopt(dialer.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        wires_.push_back({.sender = gate->dialer, .from = dialer.get(), .to = dialed->get()});
        wires_.push_back({.sender = gate->dialed, .from = dialed->get(), .to = dialer.get()});
        sockets_.push_back(std::move(dialer));
        sockets_.push_back(*std::move(dialed));
      }
      gate = gates_.erase(gate);
    }
  }

  const LinkSpeed speed_;
  const std::chrono::nanoseconds latency_;
  Mutex mutex_;
  std::vector<Gate> gates_ GUARDED_BY(mutex_);
  // The thread's.
  std::vector<Wire> wires_;
  std::vector<UniqueFd> sockets_;
  // When each rank's link has sent what it was given.
  std::vector<Clock::time_point> free_;
  std::atomic<bool> stopping_{false};
  const UniqueFd wake_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SlowLinks>> SlowLinks::Create(int ranks, const LinkSpeed& speed) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return Failed("making an eventfd");
  }
  return std::make_unique<Relay>(ranks, speed, std::move(wake));
}

}  // namespace lasp::bench
