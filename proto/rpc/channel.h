// Client channels with lasp's transport policy: keepalive agreed with the server, retries of calls
// that found no server, bounded messages.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp {

// Messages on the API and the worker plane, both ways.
inline constexpr int kMaxMessageBytes = 4 << 20;

// A plaintext channel to `address` (host:port). Calls are tried again on UNAVAILABLE (4 attempts),
// which is safe because mutations carry a request_id.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address);

// The server's side of the policy: keepalive, message sizes, exclusive ports (SO_REUSEPORT off).
void ApplyServerPolicy(grpc::ServerBuilder* builder);

// Makes gRPC fit to live in a program: its messages go through log.h, and Abseil does not watch its
// locks. Once, after InitializeLog and before the first channel or server.
void PrepareGrpc();

// Whether `address` (host:port) names a loopback interface: localhost, 127.0.0.0/8 or [::1].
bool IsLoopbackAddress(absl::string_view address);

}  // namespace lasp
