#include "server/peer_identity.h"

#include <grpc/grpc_security_constants.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

PeerIdentity::PeerIdentity(const grpc::AuthContext& connection) {
  for (const grpc::string_ref& type :
       connection.FindPropertyValues(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME)) {
    certified_ = certified_ || type == GRPC_SSL_TRANSPORT_SECURITY_TYPE;
  }
  for (const grpc::string_ref& name : connection.FindPropertyValues(GRPC_PEER_DNS_PROPERTY_NAME)) {
    names_.emplace(name.data(), name.size());
  }
}

absl::Status PeerIdentity::CheckWorkerId(absl::string_view worker_id) const {
  if (!certified_ || names_.find(worker_id) != names_.end()) {
    return absl::OkStatus();
  }
  return ErrorWithReason(
      absl::StatusCode::kPermissionDenied,
      absl::StrCat("the agent says that it is ", worker_id, ", and its certificate is for ",
                   names_.empty() ? "nobody" : absl::StrJoin(names_, ", "),
                   ": make one with deploy/credentials worker, or set --worker_id"),
      "WORKER_ID_NOT_CERTIFIED");
}

}  // namespace lasp::server
