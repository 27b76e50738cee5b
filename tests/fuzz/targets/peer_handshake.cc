// What a stranger sends to a rank that listens, or answers to one that dials: never proven.
#include "worker/parallel/peer_handshake.h"

#include <sys/socket.h>

#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using worker::PeerHandshake;
  if (size > 32 << 10) {
    return 0;
  }
  const worker::MeshIdentity identity{.rank = 1, .size = 4, .generation = "uid/3", .key = "key"};
  for (const bool dials : {false, true}) {
    int ends[2];
    fuzz::Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "a socket");
    const UniqueFd stranger(ends[1]);
    fuzz::Require(size == 0 || send(stranger.get(), data, size, MSG_NOSIGNAL) >= 0, "room");
    shutdown(stranger.get(), SHUT_WR);
    auto handshake = dials ? PeerHandshake::Dial(UniqueFd(ends[0]), &identity, 0)
                           : PeerHandshake::Answer(UniqueFd(ends[0]), &identity);
    auto state = PeerHandshake::State::kUnderWay;
    for (int i = 0; i < 16 && state == PeerHandshake::State::kUnderWay; ++i) {
      state = handshake.Advance();
    }
    fuzz::Require(state == PeerHandshake::State::kFailed, "a stranger is not let in");
    fuzz::Require(!handshake.status().ok(), "a failure says why");
  }
  return 0;
}

}  // namespace lasp
