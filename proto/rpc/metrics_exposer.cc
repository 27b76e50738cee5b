#include "proto/rpc/metrics_exposer.h"

#include <netdb.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

// Two scrapers may come at once; a slow one must not keep the other out.
constexpr std::size_t kServingThreads = 2;

struct HostPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostPort> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: want HOST:PORT, for example 127.0.0.1:0"));
  }
  return HostPort{address.substr(0, colon), address.substr(colon + 1)};
}

// Binds for a moment, because the HTTP library does not say why it could not.
absl::Status ProbeAddress(const std::string& address, const HostPort& parts) {
  std::string host = parts.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int lookup = getaddrinfo(host.c_str(), parts.port.c_str(), &hints, &found);
  if (lookup != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot serve metrics on ", address, ": ", gai_strerror(lookup)));
  }
  const int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int reuse = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  int error = 0;
  if (bind(descriptor, found->ai_addr, found->ai_addrlen) != 0 || listen(descriptor, 1) != 0) {
    error = errno;
  }
  close(descriptor);
  freeaddrinfo(found);
  if (error == 0) {
    return absl::OkStatus();
  }
  const std::string message =
      absl::StrCat("cannot serve metrics on ", address, ": ", std::strerror(error));
  return error == EADDRINUSE ? absl::UnavailableError(message)
                             : absl::InvalidArgumentError(message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::Create(const std::string& address) {
  LASP_ASSIGN_OR_RETURN(const HostPort parts, SplitAddress(address));
  LASP_RETURN_IF_ERROR(ProbeAddress(address, parts));
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(address, kServingThreads);
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty()) {
      return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address));
    }
    return std::unique_ptr<MetricsExposer>(
        new MetricsExposer(std::move(exposer), absl::StrCat(parts.host, ":", ports.front())));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", error.what()));
  }
}

MetricsExposer::MetricsExposer(std::unique_ptr<prometheus::Exposer> exposer, std::string address)
    : exposer_(std::move(exposer)), address_(std::move(address)) {}

MetricsExposer::~MetricsExposer() = default;

void MetricsExposer::Add(const std::shared_ptr<prometheus::Collectable>& collectable) {
  exposer_->RegisterCollectable(collectable);
}

}  // namespace lasp
