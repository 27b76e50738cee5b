// Carries the console's calls to the coordinator's own API, where they are judged, limited and
// counted as everybody's.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "server/console/api_route.h"

namespace lasp::server {

// Thread-safe.
class ApiCaller {
 public:
  using Message = google::protobuf::Message;
  // The answer; of a stream all its messages merged into one.
  using Done = std::function<void(absl::StatusOr<std::unique_ptr<Message>>)>;

  // Calls take at most `deadline`. Of a stream at most about `max_stream_bytes` are taken.
  explicit ApiCaller(std::shared_ptr<grpc::Channel> channel,
                     absl::Duration deadline = absl::Seconds(10),
                     size_t max_stream_bytes = size_t{1} << 20)
      : channel_(std::move(channel)), deadline_(deadline), max_stream_bytes_(max_stream_bytes) {}

  // Ends what is under way with CANCELLED, and waits for it.
  ~ApiCaller();
  ApiCaller(const ApiCaller&) = delete;
  ApiCaller& operator=(const ApiCaller&) = delete;

  // Calls `done` once, from one of gRPC's threads. `authorization` are the values of the header of
  // this name.
  void Start(ApiCall call, const std::vector<std::string>& authorization, Done done);

  // Ends what is under way with CANCELLED.
  void Cancel();

 private:
  class Call;
  class UnaryCall;
  class StreamCall;

  void Finished(Call* call);

  const std::shared_ptr<grpc::Channel> channel_;
  const absl::Duration deadline_;
  const size_t max_stream_bytes_;
  Mutex mutex_;
  CondVar idle_;
  std::set<Call*> calls_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
