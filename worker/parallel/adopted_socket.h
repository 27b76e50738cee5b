// Has a Gloo pair speak over a socket that is connected, and proven, already. By itself Gloo takes
// whoever connects first for the peer.
#pragma once

#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>

#include <memory>

#include "absl/status/status.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// A device for pairs that are to adopt sockets. Throws what Gloo throws.
std::shared_ptr<gloo::transport::tcp::Device> CreateAdoptingDevice();

// Makes the pair of `context`, one of `device`'s, with rank `peer` of a connected socket; it can be
// used at once. UNAVAILABLE where the system has no room; throws what Gloo throws.
absl::Status AdoptSocket(gloo::transport::tcp::Device* device, gloo::transport::Context* context,
                         int peer, UniqueFd socket);

}  // namespace lasp::worker
