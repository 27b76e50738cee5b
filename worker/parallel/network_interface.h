// Which of this host's network interfaces has an address.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::worker {

// The name of the interface ("eth0") that has the first address of `host`, a name or an address;
// every loopback address is the loopback interface's. UNAVAILABLE where `host` is unknown or not
// this host.
absl::StatusOr<std::string> InterfaceOf(absl::string_view host);

}  // namespace lasp::worker
