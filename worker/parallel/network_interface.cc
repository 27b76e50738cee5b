#include "worker/parallel/network_interface.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

bool IsLoopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  return address.sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// Whatever the port.
bool SameHost(const sockaddr& a, const sockaddr& b) {
  if (a.sa_family != b.sa_family) {
    return false;
  }
  if (a.sa_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(a).sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in&>(b).sin_addr.s_addr;
  }
  return a.sa_family == AF_INET6 &&
         IN6_ARE_ADDR_EQUAL(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                            &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr);
}

}  // namespace

absl::StatusOr<std::string> InterfaceOf(absl::string_view host) {
  const auto error = [host](absl::string_view why) {
    return absl::UnavailableError(absl::StrCat("other ranks cannot come to '", host, "': ", why));
  };
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(std::string(host).c_str(), nullptr, &hints, &found);
      failed != 0) {
    return error(::gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  ifaddrs* listed = nullptr;
  if (::getifaddrs(&listed) != 0) {
    return error(std::strerror(errno));
  }
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> interfaces(listed, &::freeifaddrs);
  const sockaddr& wanted = *addresses->ai_addr;
  for (const ifaddrs* interface = interfaces.get(); interface != nullptr;
       interface = interface->ifa_next) {
    const bool has_it = IsLoopback(wanted) ? (interface->ifa_flags & IFF_LOOPBACK) != 0
                                           : interface->ifa_addr != nullptr &&
                                                 SameHost(*interface->ifa_addr, wanted);
    if (has_it) {
      return std::string(interface->ifa_name);
    }
  }
  return error("no network interface of this host has that address");
}

}  // namespace lasp::worker
