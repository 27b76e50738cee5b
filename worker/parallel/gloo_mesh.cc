#include "worker/parallel/gloo_mesh.h"

#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"
#include "worker/parallel/adopted_socket.h"
#include "worker/parallel/closed_peers.h"
#include "worker/parallel/peer_rendezvous.h"

namespace lasp::worker {
namespace {

std::chrono::milliseconds Milliseconds(absl::Duration duration) {
  return std::chrono::milliseconds(std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)));
}

absl::Status GlooError(absl::string_view action, int peer, const std::exception& error) {
  return absl::UnavailableError(absl::StrCat(action, " rank ", peer, ": ", error.what()));
}

class GlooTransfer : public Transfer {
 public:
  GlooTransfer(std::unique_ptr<gloo::transport::UnboundBuffer> buffer, bool is_send, int peer,
               ClosedPeers* closed_peers)
      : buffer_(std::move(buffer)), is_send_(is_send), peer_(peer), closed_peers_(*closed_peers) {}

  absl::Status Wait(absl::Duration timeout) override {
    const absl::Duration deadline = SystemClock().Monotonic() + timeout;
    const absl::string_view action = is_send_ ? "sending to" : "receiving from";
    const ClosedPeers::Wait watched(&closed_peers_, peer_, [this] { Cancel(); });
    try {
      const bool done = is_send_ ? buffer_->waitSend(Milliseconds(timeout))
                                 : buffer_->waitRecv(Milliseconds(timeout));
      if (!done && watched.ended()) {
        return absl::UnavailableError(
            absl::StrCat(action, " rank ", peer_, ": its connection has closed"));
      }
      if (!done) {
        return absl::CancelledError(absl::StrCat(action, " rank ", peer_, ": cancelled"));
      }
    } catch (const std::exception& error) {
      if (SystemClock().Monotonic() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat(
            action, " rank ", peer_, ": nothing within ", absl::FormatDuration(timeout)));
      }
      return GlooError(action, peer_, error);
    }
    return absl::OkStatus();
  }

  void Cancel() override {
    if (is_send_) {
      buffer_->abortWaitSend();
    } else {
      buffer_->abortWaitRecv();
    }
  }

 private:
  const std::unique_ptr<gloo::transport::UnboundBuffer> buffer_;
  const bool is_send_;
  const int peer_;
  ClosedPeers& closed_peers_;
};

class GlooMeshOverTcp : public GlooMesh {
 public:
  GlooMeshOverTcp(int rank, int size, absl::Duration timeout)
      : rank_(rank), size_(size), timeout_(timeout) {}

  absl::Status Listen(absl::string_view generation, absl::string_view host) {
    LASP_ASSIGN_OR_RETURN(rendezvous_, PeerRendezvous::Listen(rank_, size_, generation, host));
    return absl::OkStatus();
  }

  std::string Address() const override { return rendezvous_->Address(); }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    LASP_ASSIGN_OR_RETURN(std::vector<UniqueFd> sockets,
                          rendezvous_->Meet(addresses, timeout_, give_up));
    LASP_ASSIGN_OR_RETURN(closed_peers_, ClosedPeers::Watch(sockets));
    try {
      device_ = CreateAdoptingDevice();
      context_ = device_->createContext(rank_, size_);
      context_->setTimeout(Milliseconds(timeout_));
      for (int peer = 0; peer < size_; ++peer) {
        if (peer != rank_) {
          LASP_RETURN_IF_ERROR(
              AdoptSocket(device_.get(), context_.get(), peer, std::move(sockets[peer])));
        }
      }
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat("cannot speak with other ranks: ", error.what()));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Transfer>> Send(int peer, uint64_t slot, const void* data,
                                                 int64_t bytes) override {
    return Begin(peer, slot, const_cast<void*>(data), bytes, /*is_send=*/true);
  }

  absl::StatusOr<std::unique_ptr<Transfer>> Receive(int peer, uint64_t slot, void* data,
                                                    int64_t bytes) override {
    return Begin(peer, slot, data, bytes, /*is_send=*/false);
  }

  int rank() const override { return rank_; }

  int size() const override { return size_; }

 private:
  absl::StatusOr<std::unique_ptr<Transfer>> Begin(int peer, uint64_t slot, void* data,
                                                  int64_t bytes, bool is_send) {
    try {
      auto buffer = context_->createUnboundBuffer(data, static_cast<size_t>(bytes));
      if (is_send) {
        buffer->send(peer, slot);
      } else {
        buffer->recv(peer, slot);
      }
      return std::make_unique<GlooTransfer>(std::move(buffer), is_send, peer, closed_peers_.get());
    } catch (const std::exception& error) {
      return GlooError(is_send ? "sending to" : "receiving from", peer, error);
    }
  }

  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  std::unique_ptr<PeerRendezvous> rendezvous_;
  std::unique_ptr<ClosedPeers> closed_peers_;
  std::shared_ptr<gloo::transport::tcp::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GlooMesh>> GlooMesh::Create(int rank, int size,
                                                           absl::string_view generation,
                                                           absl::string_view host,
                                                           absl::Duration connect_timeout) {
  auto mesh = std::make_unique<GlooMeshOverTcp>(rank, size, connect_timeout);
  LASP_RETURN_IF_ERROR(mesh->Listen(generation, host));
  return mesh;
}

}  // namespace lasp::worker
