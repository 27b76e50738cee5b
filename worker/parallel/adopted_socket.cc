#include "worker/parallel/adopted_socket.h"

#include <fcntl.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/address.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// Gloo's interface has no call for this (and the headers that a subclass needs are not packaged).
// So its pair connects to a port of ours on the loopback, as it would to a peer, and then the
// peer's socket is put under the descriptor's number: whatever Gloo knows of a connection that is
// established is this number, and that its loop is told of events.
//
// Of two addresses Gloo has the greater connect to the less.
constexpr char kPairHost[] = "127.255.255.254";

absl::Status SystemError(absl::string_view action) {
  return absl::UnavailableError(absl::StrCat(action, ": ", std::strerror(errno)));
}

bool IsConnectedTo(int descriptor, const sockaddr_in& address) {
  sockaddr_in peer = {};
  socklen_t size = sizeof peer;
  return ::getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
         peer.sin_family == AF_INET && peer.sin_port == address.sin_port &&
         peer.sin_addr.s_addr == address.sin_addr.s_addr;
}

// This process's descriptor that is connected to `address`, -1 where there is none.
int FindConnectedTo(const sockaddr_in& address) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end;
       !error && entry != end; entry.increment(error)) {
    int descriptor = -1;
    if (absl::SimpleAtoi(entry->path().filename().string(), &descriptor) &&
        IsConnectedTo(descriptor, address)) {
      return descriptor;
    }
  }
  return -1;
}

}  // namespace

std::shared_ptr<gloo::transport::tcp::Device> CreateAdoptingDevice() {
  return std::dynamic_pointer_cast<gloo::transport::tcp::Device>(
      gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(kPairHost)));
}

absl::Status AdoptSocket(gloo::transport::tcp::Device* device, gloo::transport::Context* context,
                         int peer, UniqueFd socket) {
  // Nothing is ever accepted here, so that it does not matter who else connects.
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (!listener.valid() ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return SystemError("a port on the loopback");
  }
  gloo::transport::Pair* const pair = context->createPair(peer).get();
  pair->connect(
      gloo::transport::tcp::Address(reinterpret_cast<const sockaddr*>(&address), size).bytes());
  const int descriptor = FindConnectedTo(address);
  auto* const handler = dynamic_cast<gloo::transport::tcp::Handler*>(pair);
  if (descriptor < 0 || handler == nullptr) {
    return absl::UnavailableError("the transport's own connection is not found");
  }
  constexpr int kOn = 1;
  if (::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn) != 0 ||
      ::dup3(socket.get(), descriptor, O_CLOEXEC) < 0) {
    return SystemError("a connected socket");
  }
  // The loop's epoll has forgotten the number together with the socket that it named before.
  device->registerDescriptor(descriptor, EPOLLIN, handler);
  return absl::OkStatus();
}

}  // namespace lasp::worker
