// A server stream that is read with a timeout, so that what is shown can age while nothing comes.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/interrupt.h"
#include "proto/rpc/status_conversion.h"

namespace lasp::client {

// What has come of a stream.
enum class StreamEvent { kMessage, kTimeout, kEnd };

// Used by one thread. Ctrl-C, also one that came before, ends the stream with CANCELLED; so does
// the destructor.
template <typename Response>
class EventStream {
 public:
  using Reader = grpc::ClientAsyncReader<Response>;
  // Prepares the call, for example with Stub::PrepareAsyncWatchTrainingJobs.
  using Prepare =
      std::function<std::unique_ptr<Reader>(grpc::ClientContext*, grpc::CompletionQueue*)>;

  explicit EventStream(const Prepare& prepare) : reader_(prepare(&context_, &queue_)) {
    reader_->StartCall(this);
    pending_ = Pending::kStart;
    if (Interrupted()) {
      context_.TryCancel();
    }
  }

  ~EventStream() {
    context_.TryCancel();
    while (pending_ != Pending::kNothing || !finished_) {
      if (Next(absl::Minutes(1)) == StreamEvent::kTimeout) {
        break;  // a cancelled call always ends; without that there is nothing to save here
      }
    }
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;

  // Waits for the next message, at most `timeout`.
  StreamEvent Next(absl::Duration timeout) {
    const auto deadline = absl::ToChronoTime(absl::Now() + timeout);
    while (!finished_) {
      if (pending_ == Pending::kNothing) {
        reader_->Read(&message_, this);
        pending_ = Pending::kRead;
      }
      void* tag = nullptr;
      bool ok = false;
      if (queue_.AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) {
        return StreamEvent::kTimeout;
      }
      const Pending done = pending_;
      pending_ = Pending::kNothing;
      if (done == Pending::kFinish) {
        finished_ = true;
      } else if (!ok) {
        reader_->Finish(&status_, this);
        pending_ = Pending::kFinish;
      } else if (done == Pending::kRead) {
        return StreamEvent::kMessage;
      }
    }
    return StreamEvent::kEnd;
  }

  // After kMessage.
  const Response& message() const { return message_; }

  // After kEnd.
  absl::Status status() const { return FromGrpcStatus(status_); }

 private:
  enum class Pending { kNothing, kStart, kRead, kFinish };

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  InterruptScope interrupt_{[this] { context_.TryCancel(); }};
  std::unique_ptr<Reader> reader_;
  Response message_;
  grpc::Status status_;
  Pending pending_ = Pending::kNothing;
  bool finished_ = false;
};

}  // namespace lasp::client
