// Wires between the ranks of this host that are slower than its loopback: what one rank sends to
// another goes through a relay, which holds it back as a network would.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lasp::bench {

struct LinkSpeed {
  absl::Duration latency;       // one way
  double bytes_per_second = 0;  // of all that a rank sends
};

// All that is sent, headers and acknowledgements of the layer above included, leaves its rank byte
// after byte at the link's speed, and is there the latency later. Nothing is lost, and a sender
// waits for nobody: wires hold as much as there is.
class SlowLinks {
 public:
  // A rank's address, as GlooMesh has it, is where others dial it.
  static absl::StatusOr<std::unique_ptr<SlowLinks>> Create(int ranks, const LinkSpeed& speed);
  // Cuts them.
  virtual ~SlowLinks() = default;

  // The addresses that `rank` is to dial instead of `addresses`, which are in rank order. Called
  // once a rank, from any thread.
  virtual absl::StatusOr<std::vector<std::string>> Route(
      int rank, const std::vector<std::string>& addresses) = 0;
};

}  // namespace lasp::bench
