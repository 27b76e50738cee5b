// Point-to-point transfers between all ranks of a generation, over Gloo's TCP transport. Its
// exceptions end here and become statuses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::worker {

// One send or receive under way.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // UNAVAILABLE when the peer is gone, DEADLINE_EXCEEDED after `timeout` (which breaks the whole
  // mesh), CANCELLED after Cancel.
  virtual absl::Status Wait(absl::Duration timeout) = 0;
  // Ends a Wait of another thread, or the next one.
  virtual void Cancel() = 0;
};

// Connects every rank with every other. Between two ranks, transfers on one slot pair up in the
// order in which they are started; slots are independent. Thread-safe once connected.
class GlooMesh {
 public:
  // Listens for the peers at `host` (a name or an address). `generation` names job and generation.
  // UNAVAILABLE where it cannot.
  static absl::StatusOr<std::unique_ptr<GlooMesh>> Create(int rank, int size,
                                                          absl::string_view generation,
                                                          absl::string_view host,
                                                          absl::Duration connect_timeout);
  virtual ~GlooMesh() = default;

  // What the other ranks need to connect: opaque, and holds this rank's secret.
  virtual std::string Address() const = 0;
  // Connects to all others, each of whom proves that it got its addresses from the coordinator.
  // `addresses` in rank order. UNAVAILABLE where a peer did not come in time; CANCELLED soon after
  // `give_up` says so.
  virtual absl::Status Connect(
      const std::vector<std::string>& addresses,
      const std::function<bool()>& give_up = [] { return false; }) = 0;

  // The memory must live until the transfer is waited for or destroyed, and the mesh as long as the
  // transfer. bytes > 0.
  virtual absl::StatusOr<std::unique_ptr<Transfer>> Send(int peer, uint64_t slot, const void* data,
                                                         int64_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Transfer>> Receive(int peer, uint64_t slot, void* data,
                                                            int64_t bytes) = 0;

  virtual int rank() const = 0;
  virtual int size() const = 0;
};

}  // namespace lasp::worker
