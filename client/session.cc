#include "client/session.h"

#include "absl/strings/str_cat.h"
#include "client/connection_options.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<Connection*> Session::Connect() {
  if (connection_ == nullptr) {
    console_->Verbose(absl::StrCat("connecting to ", options_.server));
    LASP_ASSIGN_OR_RETURN(const ChannelSecurity security, ReadSecurity(options_));
    LASP_ASSIGN_OR_RETURN(connection_,
                          Connection::Open(options_.server, security, options_.timeout));
  }
  return connection_.get();
}

}  // namespace lasp::client
