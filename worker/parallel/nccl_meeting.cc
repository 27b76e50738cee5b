#include "worker/parallel/nccl_meeting.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<NcclMeeting>> NcclMeeting::Listen(int rank, int size,
                                                                 absl::string_view generation,
                                                                 absl::string_view host,
                                                                 std::string nccl_id) {
  if (nccl_id.size() != (rank == 0 ? kNcclIdBytes : 0)) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " comes with ", nccl_id.size(),
                                                   " bytes of an NCCL id: rank 0 has all ",
                                                   kNcclIdBytes, ", and the others none"));
  }
  LASP_ASSIGN_OR_RETURN(auto rendezvous, PeerRendezvous::Listen(rank, size, generation, host));
  return std::unique_ptr<NcclMeeting>(new NcclMeeting(std::move(nccl_id), std::move(rendezvous)));
}

std::string NcclMeeting::Address() const { return nccl_id_ + rendezvous_->Address(); }

absl::StatusOr<std::string> NcclMeeting::Meet(std::vector<std::string> addresses,
                                              absl::Duration timeout,
                                              const std::function<bool()>& give_up) {
  if (addresses.empty() || addresses[0].size() < kNcclIdBytes) {
    return absl::InvalidArgumentError("the address of rank 0 is torn");
  }
  std::string nccl_id = addresses[0].substr(0, kNcclIdBytes);
  addresses[0].erase(0, kNcclIdBytes);
  LASP_ASSIGN_OR_RETURN(peers_, rendezvous_->Meet(addresses, timeout, give_up));
  return nccl_id;
}

}  // namespace lasp::worker
