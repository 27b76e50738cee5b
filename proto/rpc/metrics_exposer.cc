#include "proto/rpc/metrics_exposer.h"

#include <netdb.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

// Two scrapers may come at once; a slow one must not keep the other out.
constexpr std::size_t kServingThreads = 2;
constexpr absl::Duration kKnockInterval = absl::Milliseconds(5);

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

struct AddressListDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

using AddressList = std::unique_ptr<addrinfo, AddressListDeleter>;

absl::StatusOr<AddressList> Resolve(const std::string& address, const HostPort& parts) {
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
  return AddressList(found);
}

absl::Status CannotServe(const std::string& address, int error) {
  const std::string message =
      absl::StrCat("cannot serve metrics on ", address, ": ", std::strerror(error));
  return error == EADDRINUSE ? absl::UnavailableError(message)
                             : absl::InvalidArgumentError(message);
}

// Binds for a moment, because the HTTP library does not say why it could not.
absl::Status ProbeAddress(const std::string& address, const addrinfo& found) {
  const int descriptor = socket(found.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) {
    return CannotServe(address, errno);
  }
  const int reuse = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  int error = 0;
  if (bind(descriptor, found.ai_addr, found.ai_addrlen) != 0 || listen(descriptor, 1) != 0) {
    error = errno;
  }
  close(descriptor);
  return error == 0 ? absl::OkStatus() : CannotServe(address, error);
}

// The HTTP library knows no host names, and neither needs Knock.
absl::StatusOr<std::string> NumericHost(const std::string& address, const addrinfo& found) {
  std::array<char, NI_MAXHOST> host{};
  const int lookup = getnameinfo(found.ai_addr, found.ai_addrlen, host.data(), host.size(), nullptr,
                                 0, NI_NUMERICHOST);
  if (lookup != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot serve metrics on ", address, ": ", gai_strerror(lookup)));
  }
  return found.ai_family == AF_INET6 ? absl::StrCat("[", host.data(), "]")
                                     : std::string(host.data());
}

// The library's listening thread looks every two seconds whether it should end, or when somebody
// connects. Whether this arrives does not matter.
void Knock(const std::string& address) {
  const absl::StatusOr<HostPort> parts = SplitAddress(address);
  const absl::StatusOr<AddressList> found = parts.ok() ? Resolve(address, *parts) : parts.status();
  if (found.ok()) {
    const int descriptor =
        socket((*found)->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor >= 0) {
      std::ignore = connect(descriptor, (*found)->ai_addr, (*found)->ai_addrlen);
      close(descriptor);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::Create(const std::string& address) {
  LASP_ASSIGN_OR_RETURN(const HostPort parts, SplitAddress(address));
  LASP_ASSIGN_OR_RETURN(const AddressList found, Resolve(address, parts));
  LASP_RETURN_IF_ERROR(ProbeAddress(address, *found));
  LASP_ASSIGN_OR_RETURN(const std::string host, NumericHost(address, *found));
  try {
    auto exposer =
        std::make_unique<prometheus::Exposer>(absl::StrCat(host, ":", parts.port), kServingThreads);
    const int port = exposer->GetListeningPorts().at(0);
    return std::unique_ptr<MetricsExposer>(new MetricsExposer(
        std::move(exposer), absl::StrCat(parts.host, ":", port), absl::StrCat(host, ":", port)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", error.what()));
  }
}

MetricsExposer::MetricsExposer(std::unique_ptr<prometheus::Exposer> exposer, std::string address,
                               std::string numeric_address)
    : exposer_(std::move(exposer)),
      address_(std::move(address)),
      numeric_address_(std::move(numeric_address)) {}

MetricsExposer::~MetricsExposer() {
  Mutex mutex;
  CondVar changed;
  bool ended = false;
  std::thread knocker([this, &mutex, &changed, &ended] {
    MutexLock lock(&mutex);
    while (!ended) {
      Knock(numeric_address_);
      changed.WaitWithTimeout(&mutex, kKnockInterval);
    }
  });
  exposer_.reset();
  {
    MutexLock lock(&mutex);
    ended = true;
    changed.NotifyAll();
  }
  knocker.join();
}

void MetricsExposer::Add(const std::shared_ptr<prometheus::Collectable>& collectable) {
  exposer_->RegisterCollectable(collectable);
}

}  // namespace lasp
