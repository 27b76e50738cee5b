// The addresses the coordinator listens on.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

// host:port, as given in a flag. An IPv6 host is in brackets.
struct ListenAddress {
  std::string host;
  int port = 0;

  // INVALID_ARGUMENT that shows the form.
  static absl::StatusOr<ListenAddress> Parse(absl::string_view text);

  std::string ToString() const;
};

// Why `flag` could not be served: UNAVAILABLE with reason PORT_IN_USE naming the port and its
// holder, or with reason CANNOT_LISTEN and `cause` where nobody holds it.
absl::Status PortTaken(absl::string_view flag, const ListenAddress& address,
                       absl::string_view cause);

}  // namespace lasp::server
