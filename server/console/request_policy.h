// What a request must be before anything is looked up for it.
#pragma once

#include "absl/status/status.h"
#include "server/console/http_message.h"
#include "server/credentials.h"

namespace lasp::server {

// Whether the request is for this console: a page of another site that has its own name lead here
// (DNS rebinding) is refused by the name, and what another site's page sends by what the browser
// says of it. The Host must be one: an IP address, localhost, `own_host` (of --console_address), or
// a name in the certificate. INVALID_ARGUMENT (UNKNOWN_HOST, MALFORMED_REQUEST), PERMISSION_DENIED
// (CROSS_SITE).
absl::Status CheckRequest(const HttpRequest& request, const std::string& own_host,
                          const Credentials& credentials);

}  // namespace lasp::server
