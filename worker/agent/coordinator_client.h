// The agent's stream to the coordinator over gRPC: dials, carries messages, and dials again.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.grpc.pb.h"
#include "proto/rpc/mutex.h"
#include "worker/agent/agent.h"
#include "worker/agent/coordinator_channel.h"

namespace lasp::worker {

// Thread-safe.
class CoordinatorClient {
 public:
  // Dials until stopped. `agent` outlives it; `connection_changed` is told when the
  // coordinator has welcomed the agent, and when it is gone.
  CoordinatorClient(CoordinatorChannel channel, Agent* agent,
                    std::function<void(bool connected)> connection_changed);
  // Ends the stream; what is not said then is not said.
  ~CoordinatorClient();
  // Says what there is to say and has the coordinator end the stream; at most for `timeout`, and at
  // once where none listens.
  void Finish(absl::Duration timeout);
  CoordinatorClient(const CoordinatorClient&) = delete;
  CoordinatorClient& operator=(const CoordinatorClient&) = delete;

 private:
  using Stream = grpc::ClientReaderWriter<lasp::v1::ConnectRequest, lasp::v1::ConnectResponse>;

  void Run();
  // One stream from its greeting to its end. Whether the coordinator welcomed it.
  bool RunStream();
  void ReadAll(Stream* stream);
  void WriteAll(Stream* stream, grpc::ClientContext* context);
  void LogFailure(const grpc::Status& status);
  bool ended() const;
  bool finishing() const;
  void WaitUntilStreamEnds();

  // The thread's own.
  CoordinatorChannel channel_;
  Agent* const agent_;
  const std::function<void(bool)> connection_changed_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool finishing_ GUARDED_BY(mutex_) = false;
  bool stream_ended_ GUARDED_BY(mutex_) = true;
  // The stream under way, for the destructor to cancel.
  grpc::ClientContext* context_ GUARDED_BY(mutex_) = nullptr;
  // What was last said about a failure, and when; the thread's own.
  std::string last_failure_;
  absl::Duration last_failure_at_;
  std::thread thread_;
};

}  // namespace lasp::worker
