#include "server/agent_session.h"

#include <utility>

namespace lasp::server {

void AgentSession::Send(lasp::v1::ConnectResponse response) {
  std::shared_ptr<AgentLink> link;
  {
    MutexLock lock(&mutex_);
    link = link_;
  }
  if (link != nullptr) {
    link->Send(std::move(response));
  }
}

void AgentSession::Close(const absl::Status& status) {
  std::shared_ptr<AgentLink> link;
  {
    MutexLock lock(&mutex_);
    link.swap(link_);
  }
  if (link != nullptr) {
    link->Close(status);
  }
}

void AgentSession::Drop() {
  std::shared_ptr<AgentLink> link;
  MutexLock lock(&mutex_);
  link.swap(link_);
}

bool AgentSession::connected() const {
  MutexLock lock(&mutex_);
  return link_ != nullptr;
}

}  // namespace lasp::server
