// Which coordinator, and with what credentials: flags, then the environment, then the context, then
// defaults.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/options.h"
#include "proto/rpc/channel.h"

namespace lasp::client {

// Completes what the flags say by LASP_SERVER, LASP_PROJECT, LASP_TOKEN and LASP_CONTEXT, by the
// context, and by defaults. A context's credentials are left out where another server is named
// than its own.
absl::Status FillIn(GlobalOptions* options);

// Of the file that `path`, a --token_file, names. INVALID_ARGUMENT where it cannot be read, others
// may read it, or it holds no token.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

// Reads the files that are named. INVALID_ARGUMENT for files of no use and for a token that would
// cross a network in plaintext.
absl::StatusOr<ChannelSecurity> ReadSecurity(const GlobalOptions& options);

}  // namespace lasp::client
