// One agent's connection.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "lasp/v1/worker_service.grpc.pb.h"
#include "proto/rpc/mutex.h"
#include "server/agent_link.h"
#include "server/open_streams.h"
#include "server/peer_identity.h"
#include "server/service_parts.h"

namespace lasp::server {

class AgentSession;

// Reads the agent's messages into the core one at a time, in order, and writes the core's in order
// through a bounded queue. An agent that does not read is disconnected. Lives until gRPC and the
// core have both let go of it. Thread-safe.
class AgentStream final : public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>,
                          public AgentLink,
                          public OpenStream,
                          public std::enable_shared_from_this<AgentStream> {
 public:
  // `host` is where the agent's connection comes from, for the audit log.
  AgentStream(const ServiceParts& parts, PeerIdentity peer, std::string host)
      : parts_(parts), peer_(std::move(peer)), host_(std::move(host)) {}

  // Begins the stream; returns the reactor to hand to gRPC.
  AgentStream* Open();

  // --- AgentLink ---
  void Send(v1::ConnectResponse response) override;
  void Close(const absl::Status& status) override;

  // --- OpenStream ---
  void CloseStream(const absl::Status& status) override { Close(status); }

  void OnTick(absl::Duration now) override;

  // --- the reactor ---
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Handles request_ and starts the next read.
  void Take();
  // Whether request_ may be handled now; false where the stream is held until the controller has
  // room for it, or has ended.
  bool AwaitRoom();
  // Whether a stream that was held has not ended meanwhile.
  bool EndHold();
  absl::Status TakeHello();
  // Whether the caller is to end the call: once, when nothing is under way any more.
  bool TakeFinish() REQUIRES_LOCK(mutex_);
  void EndCall();
  void IssueWrite(const v1::ConnectResponse* message, int64_t number);

  const ServiceParts parts_;
  const PeerIdentity peer_;
  const std::string host_;
  // Keeps the stream alive while gRPC knows it; cleared by OnDone.
  std::shared_ptr<AgentStream> self_;
  // Touched by the reader only: reads follow one another.
  v1::ConnectRequest request_;
  std::shared_ptr<AgentSession> session_;

  Mutex mutex_;
  std::deque<v1::ConnectResponse> outgoing_ GUARDED_BY(mutex_);
  size_t outgoing_bytes_ GUARDED_BY(mutex_) = 0;
  bool writing_ GUARDED_BY(mutex_) = false;
  int64_t write_number_ GUARDED_BY(mutex_) = 0;
  int64_t issued_write_ GUARDED_BY(mutex_) = 0;
  absl::Duration write_start_ GUARDED_BY(mutex_);
  // Messages being handled: the next read may still be started.
  int takers_ GUARDED_BY(mutex_) = 0;
  // The session whose message waits for the disk or for the controller; what it sent since waits
  // behind it unread.
  std::shared_ptr<AgentSession> storing_ GUARDED_BY(mutex_);
  // What the call ends with once nothing is under way; messages queued before it go out first.
  std::optional<absl::Status> end_status_ GUARDED_BY(mutex_);
  // Finish has been called or is about to be.
  bool finished_ GUARDED_BY(mutex_) = false;
};

}  // namespace lasp::server
