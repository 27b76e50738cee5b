// Who is at the other end of a connection, by its certificate.
#pragma once

#include <grpcpp/security/auth_context.h>

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

class PeerIdentity {
 public:
  // Of a connection in plaintext, on loopback: whoever is there is believed.
  PeerIdentity() = default;

  explicit PeerIdentity(const grpc::AuthContext& connection);

  // PERMISSION_DENIED (WORKER_ID_NOT_CERTIFIED) unless `worker_id` is a DNS name of the
  // certificate, letter by letter.
  absl::Status CheckWorkerId(absl::string_view worker_id) const;

 private:
  bool certified_ = false;
  std::set<std::string, std::less<>> names_;
};

}  // namespace lasp::server
