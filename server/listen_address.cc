#include "server/listen_address.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/port_holder.h"

namespace lasp::server {

absl::StatusOr<ListenAddress> ListenAddress::Parse(absl::string_view text) {
  ListenAddress address;
  const size_t colon = text.rfind(':');
  if (colon != absl::string_view::npos) {
    address.host = std::string(text.substr(0, colon));
  }
  const bool bare_ipv6 = absl::StrContains(address.host, ":") && address.host.front() != '[';
  if (address.host.empty() || bare_ipv6 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &address.port) || address.port < 0 ||
      address.port > 65'535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not an address such as 127.0.0.1:7070 or [::1]:0"));
  }
  return address;
}

std::string ListenAddress::ToString() const { return absl::StrCat(host, ":", port); }

absl::Status PortTaken(absl::string_view flag, const ListenAddress& address,
                       absl::string_view cause) {
  const std::string holder = address.port == 0 ? "" : DescribePortHolder(address.port);
  if (holder.empty()) {
    return ErrorWithReason(absl::StatusCode::kUnavailable,
                           absl::StrCat("--", flag, ": cannot listen on ", address.ToString(), ": ",
                                        cause.empty() ? "is the host this machine's?" : cause),
                           "CANNOT_LISTEN");
  }
  return ErrorWithReason(absl::StatusCode::kUnavailable,
                         absl::StrCat("--", flag, ": port ", address.port, " is held by ", holder,
                                      ": stop it or choose another address"),
                         "PORT_IN_USE", {{"port", absl::StrCat(address.port)}});
}

}  // namespace lasp::server
