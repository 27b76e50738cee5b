// TLS on a listening port, with certificates that change while it listens.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/credentials.h"

namespace lasp::server {

// Each handshake uses the certificates of that moment. With `agents` the client must show a
// certificate of the authority; without, none is asked for. `credentials`, which must have TLS,
// outlives the server, and the result outlives it too.
std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(const Credentials* credentials,
                                                              bool agents);

}  // namespace lasp::server
