// One stream of one agent, from its Hello to its end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/mutex.h"
#include "server/agent_link.h"
#include "server/lease_table.h"

namespace lasp::server {

// Thread-safe but for the fields of the controller's thread.
class AgentSession {
 public:
  AgentSession(std::string worker_id, std::shared_ptr<Lease> lease, std::shared_ptr<AgentLink> link)
      : worker_id_(std::move(worker_id)), lease_(std::move(lease)), link_(std::move(link)) {}

  const std::string& worker_id() const { return worker_id_; }

  Lease& lease() { return *lease_; }

  void Send(lasp::v1::ConnectResponse response);
  void Close(const absl::Status& status);
  // The stream has ended: messages sent from now on are dropped.
  void Drop();
  bool connected() const;

  // --- the controller's thread only ---
  // Whether its Hello was taken and no newer session has replaced it.
  bool registered = false;
  // The highest sequence number that is handled, and acknowledged once it is stored.
  int64_t acked_sequence = 0;

 private:
  const std::string worker_id_;
  const std::shared_ptr<Lease> lease_;
  mutable Mutex mutex_;
  std::shared_ptr<AgentLink> link_ GUARDED_BY(mutex_);
};

using AgentSessionPtr = std::shared_ptr<AgentSession>;

}  // namespace lasp::server
