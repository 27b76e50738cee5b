// How the ranks of a generation on GPUs meet before NCCL connects them: over TCP, each proven,
// since NCCL waits for all of them and names none that does not come.
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
#include "worker/parallel/peer_rendezvous.h"

namespace lasp::worker {

// The bytes of an NCCL id (NCCL_UNIQUE_ID_BYTES).
inline constexpr size_t kNcclIdBytes = 128;

// Not thread-safe. The connections stay until it is destroyed: a peer may still be reading.
class NcclMeeting {
 public:
  // As PeerRendezvous::Listen. `nccl_id`: rank 0's, of kNcclIdBytes; empty on the others.
  static absl::StatusOr<std::unique_ptr<NcclMeeting>> Listen(int rank, int size,
                                                             absl::string_view generation,
                                                             absl::string_view host,
                                                             std::string nccl_id);

  // What the other ranks need to come: opaque, and secret.
  std::string Address() const;

  // Waits for all ranks, and returns rank 0's NCCL id. `addresses` in rank order. UNAVAILABLE
  // naming a rank that did not come within `timeout`; CANCELLED soon after `give_up` says so;
  // INVALID_ARGUMENT for what is no such address.
  absl::StatusOr<std::string> Meet(std::vector<std::string> addresses, absl::Duration timeout,
                                   const std::function<bool()>& give_up);

 private:
  NcclMeeting(std::string nccl_id, std::unique_ptr<PeerRendezvous> rendezvous)
      : nccl_id_(std::move(nccl_id)), rendezvous_(std::move(rendezvous)) {}

  const std::string nccl_id_;
  const std::unique_ptr<PeerRendezvous> rendezvous_;
  std::vector<UniqueFd> peers_;
};

}  // namespace lasp::worker
