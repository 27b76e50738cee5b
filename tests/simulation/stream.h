// One stream of an agent: in each direction messages arrive in order, some time after they were
// sent, until it breaks; then a first part of what is under way may still arrive, and each end
// learns of the break in its own time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lasp/v1/worker_service.pb.h"
#include "server/agent_link.h"
#include "server/agent_session.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/context.h"
#include "tests/simulation/coordinator.h"

namespace lasp::simulation {

class Stream final : public server::AgentLink, public std::enable_shared_from_this<Stream> {
 public:
  // What the agent's end hears. Dropped by Abandon.
  struct Receiver {
    std::function<void(const lasp::v1::ConnectResponse&)> message;
    std::function<void()> end;
  };

  // As a shared pointer, for the coordinator's core holds it too.
  static std::shared_ptr<Stream> Open(Context* context, Checker* checker, Coordinator* coordinator,
                                      std::string worker_id, Receiver receiver);

  // --- the agent's end ---
  void SendToServer(lasp::v1::ConnectRequest request);
  // The agent closes it, or its process is gone; `told`: the coordinator learns of it soon.
  void Abandon(bool told);

  // --- the coordinator's end ---
  void Send(lasp::v1::ConnectResponse response) override;
  void Close(const absl::Status& status) override;

  // --- the network ---
  void Break();

  // Nothing arrives before then.
  void HoldUntil(absl::Duration time) { held_until_ = std::max(held_until_, time); }

  bool server_open() const { return server_open_; }

  bool client_open() const { return client_open_; }

 private:
  Stream(Context* context, Checker* checker, Coordinator* coordinator, std::string worker_id,
         Receiver receiver);

  template <typename Message>
  struct Direction {
    std::deque<Message> under_way;
    absl::Duration last_arrival;
    // What would arrive later is lost.
    absl::Duration cut = absl::InfiniteDuration();
  };

  template <typename Message>
  void Post(Direction<Message>* direction, Message message, void (Stream::*arrive)(const Message&));
  template <typename Message>
  void ArriveNext(Direction<Message>* direction, void (Stream::*arrive)(const Message&));
  // The end of a direction, behind what is under way.
  void ArriveAtServer(const lasp::v1::ConnectRequest& request);
  void ArriveAtClient(const lasp::v1::ConnectResponse& response);
  void LoseServer();
  void EndServer();
  void EndClient();
  void After(absl::Duration delay, void (Stream::*then)());
  void Distort(lasp::v1::ConnectRequest* request) const;

  Context* const context_;
  Checker* const checker_;
  Coordinator* const coordinator_;
  const std::string worker_id_;
  // The coordinator's process that it leads to.
  const int64_t incarnation_;
  Receiver receiver_;
  Random random_;
  bool client_open_ = true;
  bool server_open_ = true;
  absl::Duration held_until_;
  Direction<lasp::v1::ConnectRequest> to_server_;
  Direction<lasp::v1::ConnectResponse> to_client_;
  server::AgentSessionPtr session_;
  // Reports that the coordinator has taken and not acknowledged.
  std::map<int64_t, lasp::v1::ConnectRequest> taken_;
};

}  // namespace lasp::simulation
