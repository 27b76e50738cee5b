// How the ranks of a generation find one another: each listens on one port, and of two ranks the
// higher dials. Only who proves to be of the generation is taken for a peer; anybody else who
// connects (a port scanner, a rank of another job) is hung up on, and that is all.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// For Meet: all ranks get the addresses at about the same time, and a hang is to be noticed within
// 20 s.
inline constexpr absl::Duration kMeetingTimeout = absl::Seconds(18);

// Not thread-safe.
class PeerRendezvous {
 public:
  // Listens at `host`, a name or an address. `generation` names job and generation, on every rank
  // alike. UNAVAILABLE where it cannot.
  static absl::StatusOr<std::unique_ptr<PeerRendezvous>> Listen(int rank, int size,
                                                                absl::string_view generation,
                                                                absl::string_view host);
  virtual ~PeerRendezvous() = default;

  // What the other ranks need to come: opaque, and holds this rank's secret. The secrets of all are
  // the generation's key.
  virtual std::string Address() const = 0;

  // A connected, non-blocking socket for every other rank, in rank order (this rank's own place is
  // empty), each proven on both ends. `addresses` in rank order. UNAVAILABLE naming a rank that did
  // not come within `timeout`; CANCELLED soon after `give_up` says so. Ends the listening.
  virtual absl::StatusOr<std::vector<UniqueFd>> Meet(const std::vector<std::string>& addresses,
                                                     absl::Duration timeout,
                                                     const std::function<bool()>& give_up) = 0;
};

}  // namespace lasp::worker
