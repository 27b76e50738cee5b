// An agent without ranks: speaks the worker plane as a test tells it to.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "lasp/v1/worker_service.grpc.pb.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_conversion.h"
#include "proto/rpc/version.h"

namespace lasp::server {

// One stream. Reads on a thread of its own.
class FakeAgent {
 public:
  FakeAgent(const std::string& worker_address, std::string worker_id, int slots)
      : worker_id_(std::move(worker_id)),
        incarnation_(NewUuid()),
        slots_(slots),
        stub_(v1::WorkerService::NewStub(NewChannel(worker_address))),
        stream_(stub_->Connect(&context_)),
        reader_([this] { Read(); }) {}

  ~FakeAgent() {
    context_.TryCancel();
    reader_.join();
  }

  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;

  v1::Hello NewHello() const {
    v1::Hello hello;
    hello.set_worker_id(worker_id_);
    hello.set_incarnation(incarnation_);
    hello.set_protocol_version(kWorkerProtocol.oldest);
    hello.set_version(Version());
    hello.set_host_name("host-of-" + worker_id_);
    for (int i = 0; i < slots_; ++i) {
      v1::Slot* slot = hello.add_slots();
      slot->set_index(i);
      slot->set_kind(v1::Slot::KIND_CPU);
    }
    return hello;
  }

  // Sends Hello and waits for the Welcome.
  bool Register() {
    SendHello(NewHello());
    return Await(v1::ConnectResponse::kWelcome).has_value();
  }

  void SendHello(const v1::Hello& hello) {
    v1::ConnectRequest request;
    *request.mutable_hello() = hello;
    Send(std::move(request));
  }

  // Numbers the message and sends it; its sequence.
  int64_t Send(v1::ConnectRequest request) {
    request.set_sequence(++sequence_);
    stream_->Write(request);
    return sequence_;
  }

  void SendHeartbeat(const std::vector<v1::RankStatus>& ranks) {
    v1::ConnectRequest request;
    request.mutable_heartbeat();
    for (const v1::RankStatus& rank : ranks) {
      *request.mutable_heartbeat()->add_ranks() = rank;
    }
    Send(std::move(request));
  }

  // The next message of this kind, passing over others; nothing after `timeout` or at the end.
  std::optional<v1::ConnectResponse> Await(v1::ConnectResponse::BodyCase kind,
                                           absl::Duration timeout = absl::Seconds(10)) {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (true) {
      for (auto it = received_.begin(); it != received_.end(); ++it) {
        if (it->body_case() == kind) {
          v1::ConnectResponse found = std::move(*it);
          received_.erase(it);
          return found;
        }
      }
      if (ended_ || absl::Now() >= deadline) {
        return std::nullopt;
      }
      changed_.WaitWithTimeout(&mutex_, deadline - absl::Now());
    }
  }

  // Whether everything up to `sequence` was acknowledged in time.
  bool AwaitAck(int64_t sequence, absl::Duration timeout = absl::Seconds(10)) {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (acked_ < sequence) {
      if (ended_ || absl::Now() >= deadline) {
        return false;
      }
      changed_.WaitWithTimeout(&mutex_, deadline - absl::Now());
    }
    return true;
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
    return end_status_;
  }

  void WritesDone() { stream_->WritesDone(); }

  const std::string& worker_id() const { return worker_id_; }

 private:
  void Read() {
    v1::ConnectResponse response;
    while (stream_->Read(&response)) {
      MutexLock lock(&mutex_);
      acked_ = std::max(acked_, response.acked_sequence());
      received_.push_back(response);
      changed_.NotifyAll();
    }
    const absl::Status status = FromGrpcStatus(stream_->Finish());
    MutexLock lock(&mutex_);
    ended_ = true;
    end_status_ = status;
    changed_.NotifyAll();
  }

  const std::string worker_id_;
  const std::string incarnation_;
  const int slots_;
  int64_t sequence_ = 0;
  grpc::ClientContext context_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> stream_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::ConnectResponse> received_ GUARDED_BY(mutex_);
  int64_t acked_ GUARDED_BY(mutex_) = 0;
  bool ended_ GUARDED_BY(mutex_) = false;
  absl::Status end_status_ GUARDED_BY(mutex_);
  std::thread reader_;
};

}  // namespace lasp::server
