// How two ranks prove to each other that they belong to one generation: each knows its key, made of
// secrets that only the coordinator hands out, and shows it with an HMAC over the job, the
// generation, both ranks and the other's fresh nonce. Nothing secret crosses the connection, and a
// recorded proof is good for nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// Who a rank is among its generation.
struct MeshIdentity {
  int rank = 0;
  int size = 0;
  // Names job and generation; no end of a line in it.
  std::string generation;
  // What all ranks of the generation know, and nobody else.
  std::string key;
};

// One connection on its way to being proven. Never blocks. Not thread-safe.
class PeerHandshake {
 public:
  enum class State { kUnderWay, kDone, kFailed };

  // `socket` is non-blocking and connecting, or connected, to `peer`, who is to answer. `identity`
  // outlives the handshake.
  static PeerHandshake Dial(UniqueFd socket, const MeshIdentity* identity, int peer);
  // `socket` is non-blocking and connected to somebody who is to say who they are. Only ranks above
  // one's own dial.
  static PeerHandshake Answer(UniqueFd socket, const MeshIdentity* identity);

  // What to poll for before the next Advance.
  int16_t events() const;
  // Goes as far as it can without waiting.
  State Advance();

  int descriptor() const { return socket_.get(); }

  bool dials() const { return dials_; }

  // -1 while nobody has said who they are; proven only when done.
  int peer() const { return peer_; }

  // Why it failed.
  const absl::Status& status() const { return status_; }

  // When done: a connected socket from which nothing more than the handshake has been read.
  UniqueFd TakeSocket() { return std::move(socket_); }

 private:
  enum class Step { kConnect, kHello, kChallenge, kProof, kWelcome };

  PeerHandshake(UniqueFd socket, const MeshIdentity* identity, int peer);
  State Take(absl::string_view message);
  State TakeHello(absl::string_view message);
  State TakeChallenge(absl::string_view message);
  State TakeProof(absl::string_view message);
  State Await(Step step, absl::string_view message);
  State Fail(absl::Status status);
  size_t AwaitedBytes() const;
  std::string Prove(absl::string_view role) const;

  UniqueFd socket_;
  const MeshIdentity* identity_;
  bool dials_;
  int peer_;
  Step step_;
  // Of the one who dials, and of the one who answers.
  std::string dial_nonce_;
  std::string answer_nonce_;
  std::string received_;
  absl::Status status_;
};

}  // namespace lasp::worker
