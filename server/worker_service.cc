#include "server/worker_service.h"

#include <memory>

#include "server/agent_stream.h"
#include "server/principal.h"

namespace lasp::server {

grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* WorkerService::Connect(
    grpc::CallbackServerContext* context) {
  return std::make_shared<AgentStream>(parts_, PeerIdentity(*context->auth_context()),
                                       PrincipalOfPeer(context->peer()))
      ->Open();
}

}  // namespace lasp::server
