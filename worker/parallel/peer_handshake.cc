#include "worker/parallel/peer_handshake.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/hmac.h"
#include "proto/rpc/random_id.h"

namespace lasp::worker {
namespace {

// Hello: greeting, the dialer's rank, the rank it wants, its nonce. Challenge: the answerer's nonce
// and proof. Proof: the dialer's. Welcome: one byte.
constexpr absl::string_view kGreeting = "lasp.mesh.2\n";
constexpr absl::string_view kWelcomeByte = "!";
constexpr size_t kRankBytes = 4;
constexpr size_t kNonceBytes = 36;
constexpr size_t kHelloBytes = kGreeting.size() + 2 * kRankBytes + kNonceBytes;

std::string EncodeRank(int rank) {
  std::string bytes(kRankBytes, '\0');
  for (size_t i = 0; i < kRankBytes; ++i) {
    bytes[i] = static_cast<char>((static_cast<unsigned>(rank) >> (8 * i)) & 0xff);
  }
  return bytes;
}

int64_t DecodeRank(absl::string_view bytes) {
  int64_t rank = 0;
  for (size_t i = 0; i < kRankBytes; ++i) {
    rank |= static_cast<int64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return rank;
}

}  // namespace

PeerHandshake::PeerHandshake(UniqueFd socket, const MeshIdentity* identity, int peer)
    : socket_(std::move(socket)),
      identity_(identity),
      dials_(peer >= 0),
      peer_(peer),
      step_(dials_ ? Step::kConnect : Step::kHello) {}

PeerHandshake PeerHandshake::Dial(UniqueFd socket, const MeshIdentity* identity, int peer) {
  PeerHandshake handshake(std::move(socket), identity, peer);
  handshake.dial_nonce_ = NewUuid();
  return handshake;
}

PeerHandshake PeerHandshake::Answer(UniqueFd socket, const MeshIdentity* identity) {
  PeerHandshake handshake(std::move(socket), identity, -1);
  handshake.answer_nonce_ = NewUuid();
  return handshake;
}

int16_t PeerHandshake::events() const { return step_ == Step::kConnect ? POLLOUT : POLLIN; }

PeerHandshake::State PeerHandshake::Fail(absl::Status status) {
  status_ = std::move(status);
  return State::kFailed;
}

size_t PeerHandshake::AwaitedBytes() const {
  switch (step_) {
    case Step::kHello:
      return kHelloBytes;
    case Step::kChallenge:
      return kNonceBytes + kHmacBytes;
    case Step::kProof:
      return kHmacBytes;
    case Step::kConnect:
    case Step::kWelcome:
      break;
  }
  return kWelcomeByte.size();
}

std::string PeerHandshake::Prove(absl::string_view role) const {
  const int dialer = dials_ ? identity_->rank : peer_;
  const int answerer = dials_ ? peer_ : identity_->rank;
  // The nonces are of one length, and nothing before them holds the end of a line.
  return Hmac(identity_->key,
              absl::StrCat(kGreeting, role, "\n", identity_->generation, "\n", dialer, "\n",
                           answerer, "\n", dial_nonce_, "\n", answer_nonce_));
}

PeerHandshake::State PeerHandshake::Advance() {
  if (step_ == Step::kConnect) {
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      return Fail(absl::UnavailableError(std::strerror(error)));
    }
    return Await(Step::kChallenge, absl::StrCat(kGreeting, EncodeRank(identity_->rank),
                                                EncodeRank(peer_), dial_nonce_));
  }
  // Never more than the handshake's own bytes: what follows them is for the transport.
  char buffer[kHelloBytes + kHmacBytes];
  const size_t wanted = AwaitedBytes() - received_.size();
  const ssize_t count = ::recv(socket_.get(), buffer, wanted, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
    return State::kUnderWay;
  }
  if (count <= 0) {
    return Fail(
        absl::UnavailableError(count == 0 ? "the other end hung up" : std::strerror(errno)));
  }
  received_.append(buffer, static_cast<size_t>(count));
  if (received_.size() < AwaitedBytes()) {
    return State::kUnderWay;
  }
  return Take(std::exchange(received_, {}));
}

PeerHandshake::State PeerHandshake::Take(absl::string_view message) {
  switch (step_) {
    case Step::kHello:
      return TakeHello(message);
    case Step::kChallenge:
      return TakeChallenge(message);
    case Step::kProof:
      return TakeProof(message);
    case Step::kConnect:
    case Step::kWelcome:
      break;
  }
  return message == kWelcomeByte ? State::kDone
                                 : Fail(absl::UnavailableError("what answers is not a rank"));
}

PeerHandshake::State PeerHandshake::TakeHello(absl::string_view message) {
  const int64_t from = DecodeRank(message.substr(kGreeting.size()));
  const int64_t to = DecodeRank(message.substr(kGreeting.size() + kRankBytes));
  if (message.substr(0, kGreeting.size()) != kGreeting || to != identity_->rank || from <= to ||
      from >= identity_->size) {
    return Fail(absl::UnavailableError("what connected is not a rank of this generation"));
  }
  peer_ = static_cast<int>(from);
  dial_nonce_ = std::string(message.substr(kHelloBytes - kNonceBytes));
  return Await(Step::kProof, absl::StrCat(answer_nonce_, Prove("answer")));
}

PeerHandshake::State PeerHandshake::TakeChallenge(absl::string_view message) {
  answer_nonce_ = std::string(message.substr(0, kNonceBytes));
  if (!SameSecret(message.substr(kNonceBytes), Prove("answer"))) {
    return Fail(absl::UnavailableError("what answers does not know this generation"));
  }
  return Await(Step::kWelcome, Prove("dial"));
}

PeerHandshake::State PeerHandshake::TakeProof(absl::string_view message) {
  if (!SameSecret(message, Prove("dial"))) {
    return Fail(absl::UnavailableError(
        absl::StrCat("what connected as rank ", peer_, " does not know this generation")));
  }
  const State sent = Await(Step::kWelcome, kWelcomeByte);
  return sent == State::kFailed ? sent : State::kDone;
}

// Says `message`, after which that of `step` is to come.
PeerHandshake::State PeerHandshake::Await(Step step, absl::string_view message) {
  // So little always fits into the buffer of a connection that is new.
  const ssize_t count = ::send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL);
  if (count != static_cast<ssize_t>(message.size())) {
    return Fail(absl::UnavailableError(count < 0 ? std::strerror(errno) : "the other end hung up"));
  }
  step_ = step;
  return State::kUnderWay;
}

}  // namespace lasp::worker
