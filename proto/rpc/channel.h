// Client channels with lasp's transport policy: keepalive agreed with the server, retries of calls
// that found no server, bounded messages.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/tls_identity.h"

namespace lasp {

// Messages on the API and the worker plane, both ways.
inline constexpr int kMaxMessageBytes = 4 << 20;

// How a channel is secured: in plaintext without a TLS identity, without a token unless one is
// given.
struct ChannelSecurity {
  TlsIdentity tls = {};
  // Sent with every call as `authorization: Bearer …`.
  std::string token = {};

  // INVALID_ARGUMENT where the token would cross a network in plaintext.
  absl::Status CheckFor(const std::string& address) const;
};

// A channel to `address` (host:port). Calls are tried again on UNAVAILABLE (4 attempts), which is
// safe because mutations carry a request_id. `security` must pass its check: a token that does not
// is not sent.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address,
                                          const ChannelSecurity& security = {});

// After so long without an acknowledgement of a keepalive ping, or of what was sent, a connection
// is taken for dead.
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(10);

// The server's side of the policy: keepalive, message sizes, exclusive ports (SO_REUSEPORT off),
// and no compressed requests: gRPC 1.51 unpacks them without bound.
void ApplyServerPolicy(grpc::ServerBuilder* builder);

// Makes gRPC fit to live in a program: its messages go through log.h, and Abseil does not watch its
// locks. Once, after InitializeLog and before the first channel or server.
void PrepareGrpc();

// Whether `address` (host:port) names a loopback interface: localhost, 127.0.0.0/8 or [::1].
bool IsLoopbackAddress(absl::string_view address);

}  // namespace lasp
