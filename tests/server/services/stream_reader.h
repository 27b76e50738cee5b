// Reads a server stream on a thread of its own, so that a test may wait for a message with a
// deadline.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_conversion.h"

namespace lasp::server {

template <typename Response>
class StreamReader {
 public:
  // `open` starts the call with the context given.
  explicit StreamReader(
      const std::function<std::unique_ptr<grpc::ClientReader<Response>>(grpc::ClientContext*)>&
          open)
      : reader_(open(&context_)), thread_([this] { Read(); }) {}

  ~StreamReader() {
    context_.TryCancel();
    thread_.join();
  }

  StreamReader(const StreamReader&) = delete;
  StreamReader& operator=(const StreamReader&) = delete;

  // Nothing after `timeout` or at the end.
  std::optional<Response> Next(absl::Duration timeout = absl::Seconds(10)) {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (received_.empty() && !ended_ && absl::Now() < deadline) {
      changed_.WaitWithTimeout(&mutex_, deadline - absl::Now());
    }
    if (received_.empty()) {
      return std::nullopt;
    }
    Response response = std::move(received_.front());
    received_.pop_front();
    return response;
  }

  // How the stream ended; DEADLINE_EXCEEDED if it has not in time.
  absl::Status AwaitEnd(absl::Duration timeout = absl::Seconds(10)) {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (!ended_) {
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError("the stream is still open");
      }
      changed_.WaitWithTimeout(&mutex_, deadline - absl::Now());
    }
    return status_;
  }

 private:
  void Read() {
    Response response;
    while (reader_->Read(&response)) {
      MutexLock lock(&mutex_);
      received_.push_back(response);
      changed_.NotifyAll();
    }
    const absl::Status status = FromGrpcStatus(reader_->Finish());
    MutexLock lock(&mutex_);
    ended_ = true;
    status_ = status;
    changed_.NotifyAll();
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<Response>> reader_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Response> received_ GUARDED_BY(mutex_);
  bool ended_ GUARDED_BY(mutex_) = false;
  absl::Status status_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::server
