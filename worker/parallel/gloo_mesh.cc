#include "worker/parallel/gloo_mesh.h"

#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <netdb.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// Reserved for the handshake; communicators use others.
constexpr uint64_t kHandshakeSlot = 1;

std::chrono::milliseconds Milliseconds(absl::Duration duration) {
  return std::chrono::milliseconds(std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)));
}

absl::Status GlooError(absl::string_view action, int peer, const std::exception& error) {
  return absl::UnavailableError(absl::StrCat(action, " rank ", peer, ": ", error.what()));
}

// `host` as a number. Gloo crashes on a name that does not resolve.
absl::StatusOr<std::string> Resolve(absl::string_view host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(std::string(host).c_str(), nullptr, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen for other ranks at '", host, "': ", ::gai_strerror(error)));
  }
  char number[NI_MAXHOST] = "";
  ::getnameinfo(found->ai_addr, found->ai_addrlen, number, sizeof number, nullptr, 0,
                NI_NUMERICHOST);
  ::freeaddrinfo(found);
  return std::string(number);
}

class GlooTransfer : public Transfer {
 public:
  GlooTransfer(std::unique_ptr<gloo::transport::UnboundBuffer> buffer, bool is_send, int peer)
      : buffer_(std::move(buffer)), is_send_(is_send), peer_(peer) {}

  absl::Status Wait(absl::Duration timeout) override {
    const absl::Duration deadline = SystemClock().Monotonic() + timeout;
    const absl::string_view action = is_send_ ? "sending to" : "receiving from";
    try {
      const bool done = is_send_ ? buffer_->waitSend(Milliseconds(timeout))
                                 : buffer_->waitRecv(Milliseconds(timeout));
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
};

// An address blob: the rank's secret, then for each peer the endpoint that waits for it, every one
// preceded by its length in two bytes.
void AppendField(std::string* blob, absl::string_view field) {
  blob->push_back(static_cast<char>(field.size() & 0xff));
  blob->push_back(static_cast<char>((field.size() >> 8) & 0xff));
  blob->append(field.data(), field.size());
}

absl::StatusOr<std::vector<std::string>> ParseFields(absl::string_view blob) {
  std::vector<std::string> fields;
  while (!blob.empty()) {
    if (blob.size() < 2) {
      return absl::InvalidArgumentError("a rank's address is torn");
    }
    const size_t size =
        static_cast<unsigned char>(blob[0]) + 256u * static_cast<unsigned char>(blob[1]);
    blob.remove_prefix(2);
    if (blob.size() < size) {
      return absl::InvalidArgumentError("a rank's address is torn");
    }
    fields.emplace_back(blob.substr(0, size));
    blob.remove_prefix(size);
  }
  return fields;
}

class GlooMeshOverTcp : public GlooMesh {
 public:
  GlooMeshOverTcp(int rank, int size, absl::Duration timeout)
      : rank_(rank), size_(size), timeout_(timeout), secret_(NewUuid()) {}

  absl::Status Listen(absl::string_view host) {
    LASP_ASSIGN_OR_RETURN(const std::string number, Resolve(host));
    try {
      device_ = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(number.c_str()));
      context_ = device_->createContext(rank_, size_);
      // Gloo waits five times its timeout for a connection.
      context_->setTimeout(Milliseconds(timeout_ / 5));
      for (int peer = 0; peer < size_; ++peer) {
        if (peer != rank_) {
          context_->createPair(peer);
        }
      }
    } catch (const std::exception& error) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen for other ranks at ", host, ": ", error.what()));
    }
    return absl::OkStatus();
  }

  std::string Address() const override {
    std::string blob;
    AppendField(&blob, secret_);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) {
        AppendField(&blob, "");
        continue;
      }
      const std::vector<char> bytes = context_->getPair(peer)->address().bytes();
      AppendField(&blob, absl::string_view(bytes.data(), bytes.size()));
    }
    return blob;
  }

  absl::Status Connect(const std::vector<std::string>& addresses) override {
    if (static_cast<int>(addresses.size()) != size_) {
      return absl::InvalidArgumentError(absl::StrCat("got the addresses of ", addresses.size(),
                                                     " ranks, of ", size_, " expected"));
    }
    std::vector<std::string> secrets;
    for (int peer = 0; peer < size_; ++peer) {
      LASP_ASSIGN_OR_RETURN(std::vector<std::string> fields, ParseFields(addresses[peer]));
      if (static_cast<int>(fields.size()) != size_ + 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("the address of rank ", peer, " is not of this generation"));
      }
      secrets.push_back(fields[0]);
      if (peer == rank_) {
        continue;
      }
      const std::string& endpoint = fields[static_cast<size_t>(rank_) + 1];
      try {
        context_->getPair(peer)->connect(std::vector<char>(endpoint.begin(), endpoint.end()));
      } catch (const std::exception& error) {
        return GlooError("connecting to", peer, error);
      }
    }
    return ProveSecrets(secrets);
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
      return std::make_unique<GlooTransfer>(std::move(buffer), is_send, peer);
    } catch (const std::exception& error) {
      return GlooError(is_send ? "sending to" : "receiving from", peer, error);
    }
  }

  // Each rank sends every peer the secret of that peer.
  absl::Status ProveSecrets(const std::vector<std::string>& secrets) {
    std::vector<std::string> proofs(static_cast<size_t>(size_), std::string(secret_.size(), '\0'));
    std::vector<std::unique_ptr<Transfer>> transfers;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) {
        continue;
      }
      if (secrets[peer].size() != secret_.size()) {
        return absl::InvalidArgumentError(absl::StrCat("the address of rank ", peer, " is torn"));
      }
      LASP_ASSIGN_OR_RETURN(auto receive, Receive(peer, kHandshakeSlot, proofs[peer].data(),
                                                  static_cast<int64_t>(proofs[peer].size())));
      transfers.push_back(std::move(receive));
      LASP_ASSIGN_OR_RETURN(auto send, Send(peer, kHandshakeSlot, secrets[peer].data(),
                                            static_cast<int64_t>(secrets[peer].size())));
      transfers.push_back(std::move(send));
    }
    for (const auto& transfer : transfers) {
      LASP_RETURN_IF_ERROR(transfer->Wait(timeout_));
    }
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank_ && proofs[peer] != secret_) {
        return absl::UnavailableError(
            absl::StrCat("what connected as rank ", peer, " does not know this generation"));
      }
    }
    return absl::OkStatus();
  }

  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  const std::string secret_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GlooMesh>> GlooMesh::Create(int rank, int size,
                                                           absl::string_view host,
                                                           absl::Duration connect_timeout) {
  auto mesh = std::make_unique<GlooMeshOverTcp>(rank, size, connect_timeout);
  LASP_RETURN_IF_ERROR(mesh->Listen(host));
  return mesh;
}

}  // namespace lasp::worker
