// What is at a coordinator's address, step by step, each with a deadline: the name, the port, TLS.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/tls_identity.h"
#include "proto/spec/unique_fd.h"

namespace lasp::client {

// Connects to `address` (host:port). NOT_FOUND where the name is not known, UNAVAILABLE where
// nothing listens, DEADLINE_EXCEEDED where nothing answers within `timeout`.
absl::StatusOr<UniqueFd> ConnectTo(const std::string& address, absl::Duration timeout);

struct TlsProbe {
  // Of the certificate that the other end shows.
  absl::Time end = absl::InfiniteFuture();
  // Why it is not to be believed; empty where it is.
  std::string problem;
};

// A TLS handshake over a connection to `address`. Also tells of a certificate that is not believed.
// UNAVAILABLE where the other end speaks no TLS or refuses, DEADLINE_EXCEEDED.
absl::StatusOr<TlsProbe> ProbeTls(const UniqueFd& connection, const std::string& address,
                                  const TlsIdentity& identity, absl::Duration timeout);

}  // namespace lasp::client
