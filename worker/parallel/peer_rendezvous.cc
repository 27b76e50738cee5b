#include "worker/parallel/peer_rendezvous.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/hmac.h"
#include "proto/rpc/log.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"
#include "worker/parallel/peer_handshake.h"

namespace lasp::worker {
namespace {

// Nothing can interrupt a poll when it is time to give up: it looks this often.
constexpr absl::Duration kGiveUpPoll = absl::Milliseconds(50);
// Before a rank is dialed again that did not answer, or was not what it should be.
constexpr absl::Duration kRedialPause = absl::Milliseconds(100);
// So long may somebody who connected take to prove who they are, and so many at a time.
constexpr absl::Duration kProofTime = absl::Seconds(5);
constexpr size_t kMaxUnproven = 256;

struct FreeAddressInfo {
  void operator()(addrinfo* info) const { ::freeaddrinfo(info); }
};

using AddressInfo = std::unique_ptr<addrinfo, FreeAddressInfo>;

absl::StatusOr<AddressInfo> LookUp(const std::string& host, const std::string& port, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(::gai_strerror(error));
  }
  return AddressInfo(found);
}

// An address blob is three fields (the rank's secret, where it listens, the port), every one
// preceded by its length in two bytes.
void AppendField(std::string* blob, absl::string_view field) {
  blob->push_back(static_cast<char>(field.size() & 0xff));
  blob->push_back(static_cast<char>((field.size() >> 8) & 0xff));
  blob->append(field.data(), field.size());
}

struct PeerAddress {
  std::string secret;
  std::string host;
  std::string port;
};

absl::StatusOr<PeerAddress> ParseAddress(int rank, absl::string_view blob) {
  PeerAddress address;
  for (std::string* field : {&address.secret, &address.host, &address.port}) {
    const size_t size = blob.size() < 2 ? blob.size()
                                        : static_cast<unsigned char>(blob[0]) +
                                              256u * static_cast<unsigned char>(blob[1]);
    if (blob.size() < 2 + size) {
      return absl::InvalidArgumentError(absl::StrCat("the address of rank ", rank, " is torn"));
    }
    *field = std::string(blob.substr(2, size));
    blob.remove_prefix(2 + size);
  }
  if (!blob.empty() || address.secret.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the address of rank ", rank, " is torn"));
  }
  return address;
}

class TcpRendezvous : public PeerRendezvous {
 public:
  TcpRendezvous(int rank, int size, absl::string_view generation)
      : size_(size),
        secret_(NewUuid()),
        identity_{.rank = rank, .size = size, .generation = std::string(generation), .key = ""} {}

  absl::Status Open(absl::string_view host) {
    const auto error = [host](absl::string_view why) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen for other ranks at '", host, "': ", why));
    };
    const absl::StatusOr<AddressInfo> found = LookUp(std::string(host), "0", AI_PASSIVE);
    if (!found.ok()) {
      return error(found.status().message());
    }
    const addrinfo& at = **found;
    listener_ = UniqueFd(::socket(at.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage bound = {};
    socklen_t bound_size = sizeof bound;
    if (!listener_.valid() || ::bind(listener_.get(), at.ai_addr, at.ai_addrlen) != 0 ||
        ::listen(listener_.get(), SOMAXCONN) != 0 ||
        ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &bound_size) != 0) {
      return error(std::strerror(errno));
    }
    char number[NI_MAXHOST] = "";
    char port[NI_MAXSERV] = "";
    ::getnameinfo(reinterpret_cast<const sockaddr*>(&bound), bound_size, number, sizeof number,
                  port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    AppendField(&address_, secret_);
    AppendField(&address_, number);
    AppendField(&address_, port);
    return absl::OkStatus();
  }

  std::string Address() const override { return address_; }

  absl::StatusOr<std::vector<UniqueFd>> Meet(const std::vector<std::string>& addresses,
                                             absl::Duration timeout,
                                             const std::function<bool()>& give_up) override {
    LASP_RETURN_IF_ERROR(Begin(addresses));
    const absl::Duration deadline = Now() + timeout;
    while (Missing() >= 0) {
      if (give_up()) {
        return absl::CancelledError("told to give up before every rank was connected");
      }
      if (Now() >= deadline) {
        return absl::UnavailableError(absl::StrCat(
            "no connection with rank ", Missing(), " within ", absl::FormatDuration(timeout),
            last_failure_[Missing()].empty() ? "" : ": ", last_failure_[Missing()]));
      }
      DialAll();
      LASP_RETURN_IF_ERROR(WaitAndAdvance(std::min(kGiveUpPoll, deadline - Now())));
    }
    if (strangers_ > 0) {
      LASP_LOG(kWarning, "hung up on connections that are not of this generation",
               {{"connections", strangers_}, {"last", last_stranger_}});
    }
    handshakes_.clear();
    listener_ = UniqueFd();
    return std::move(connected_);
  }

 private:
  struct Attempt {
    PeerHandshake handshake;
    absl::Duration until;
  };

  static absl::Duration Now() { return SystemClock().Monotonic(); }

  absl::Status Begin(const std::vector<std::string>& addresses) {
    if (static_cast<int>(addresses.size()) != size_) {
      return absl::InvalidArgumentError(absl::StrCat("got the addresses of ", addresses.size(),
                                                     " ranks, of ", size_, " expected"));
    }
    std::string secrets;
    for (int peer = 0; peer < size_; ++peer) {
      LASP_ASSIGN_OR_RETURN(PeerAddress address, ParseAddress(peer, addresses[peer]));
      AppendField(&secrets, peer == identity_.rank ? secret_ : address.secret);
      peers_.push_back(std::move(address));
    }
    identity_.key = Hmac(secrets, identity_.generation);
    connected_.resize(static_cast<size_t>(size_));
    dial_at_.resize(static_cast<size_t>(size_), absl::ZeroDuration());
    last_failure_.resize(static_cast<size_t>(size_));
    return absl::OkStatus();
  }

  // The first rank that is not connected yet, -1 where all are.
  int Missing() const {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != identity_.rank && !connected_[peer].valid()) {
        return peer;
      }
    }
    return -1;
  }

  void DialAll() {
    const absl::Duration now = Now();
    for (int peer = 0; peer < identity_.rank; ++peer) {
      if (connected_[peer].valid() || dial_at_[peer] > now) {
        continue;
      }
      // Until it fails.
      dial_at_[peer] = absl::InfiniteDuration();
      absl::StatusOr<UniqueFd> socket = StartConnecting(peers_[peer]);
      if (socket.ok()) {
        handshakes_.push_back(
            {PeerHandshake::Dial(*std::move(socket), &identity_, peer), absl::InfiniteDuration()});
      } else {
        DialFailed(peer, socket.status());
      }
    }
  }

  static absl::StatusOr<UniqueFd> StartConnecting(const PeerAddress& peer) {
    LASP_ASSIGN_OR_RETURN(const AddressInfo at,
                          LookUp(peer.host, peer.port, AI_NUMERICHOST | AI_NUMERICSERV));
    UniqueFd socket(::socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket.valid() ||
        (::connect(socket.get(), at->ai_addr, at->ai_addrlen) != 0 && errno != EINPROGRESS)) {
      return absl::UnavailableError(std::strerror(errno));
    }
    return socket;
  }

  void DialFailed(int peer, const absl::Status& why) {
    last_failure_[peer] = std::string(why.message());
    dial_at_[peer] = Now() + kRedialPause;
  }

  absl::Status WaitAndAdvance(absl::Duration timeout) {
    std::vector<pollfd> waits = {{.fd = listener_.get(), .events = POLLIN, .revents = 0}};
    for (const Attempt& attempt : handshakes_) {
      waits.push_back({.fd = attempt.handshake.descriptor(),
                       .events = attempt.handshake.events(),
                       .revents = 0});
    }
    const auto milliseconds =
        static_cast<int>(absl::ToInt64Milliseconds(std::max(timeout, absl::ZeroDuration())));
    if (::poll(waits.data(), waits.size(), milliseconds + 1) < 0 && errno != EINTR) {
      return absl::UnavailableError(absl::StrCat("poll: ", std::strerror(errno)));
    }
    const absl::Duration now = Now();
    std::vector<Attempt> left;
    for (size_t i = 0; i < handshakes_.size(); ++i) {
      Attempt& attempt = handshakes_[i];
      const PeerHandshake::State state =
          waits[i + 1].revents != 0 ? attempt.handshake.Advance() : PeerHandshake::State::kUnderWay;
      if (state == PeerHandshake::State::kDone) {
        connected_[attempt.handshake.peer()] = attempt.handshake.TakeSocket();
      } else if (state == PeerHandshake::State::kFailed) {
        Failed(attempt.handshake, attempt.handshake.status());
      } else if (attempt.until <= now) {
        Failed(attempt.handshake, absl::UnavailableError("did not prove who it is"));
      } else {
        left.push_back(std::move(attempt));
      }
    }
    handshakes_ = std::move(left);
    return waits[0].revents != 0 ? Accept() : absl::OkStatus();
  }

  void Failed(const PeerHandshake& handshake, const absl::Status& why) {
    if (handshake.dials()) {
      DialFailed(handshake.peer(), why);
      return;
    }
    ++strangers_;
    last_stranger_ = std::string(why.message());
    if (handshake.peer() >= 0) {
      last_failure_[handshake.peer()] = last_stranger_;
    }
  }

  absl::Status Accept() {
    for (;;) {
      UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (socket.valid()) {
        MakeRoom();
        handshakes_.push_back(
            {PeerHandshake::Answer(std::move(socket), &identity_), Now() + kProofTime});
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        return absl::UnavailableError(
            absl::StrCat("cannot take a connection from another rank: ", std::strerror(errno)));
      } else if (errno == EAGAIN) {
        return absl::OkStatus();
      }
      // Anything else befell the connection, not us.
    }
  }

  // The one that has had the most time to prove itself goes first.
  void MakeRoom() {
    if (handshakes_.size() < kMaxUnproven + static_cast<size_t>(size_)) {
      return;
    }
    const auto oldest =
        std::find_if(handshakes_.begin(), handshakes_.end(),
                     [](const Attempt& attempt) { return !attempt.handshake.dials(); });
    Failed(oldest->handshake, absl::UnavailableError("did not prove who it is"));
    handshakes_.erase(oldest);
  }

  const int size_;
  const std::string secret_;
  std::string address_;
  UniqueFd listener_;
  MeshIdentity identity_;
  std::vector<PeerAddress> peers_;
  std::vector<UniqueFd> connected_;
  // When a lower rank is dialed next; InfiniteDuration while it is being dialed.
  std::vector<absl::Duration> dial_at_;
  std::vector<std::string> last_failure_;
  std::vector<Attempt> handshakes_;
  int64_t strangers_ = 0;
  std::string last_stranger_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PeerRendezvous>> PeerRendezvous::Listen(int rank, int size,
                                                                       absl::string_view generation,
                                                                       absl::string_view host) {
  auto rendezvous = std::make_unique<TcpRendezvous>(rank, size, generation);
  LASP_RETURN_IF_ERROR(rendezvous->Open(host));
  return rendezvous;
}

}  // namespace lasp::worker
