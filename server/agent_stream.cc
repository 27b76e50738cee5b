#include "server/agent_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/agent_session.h"
#include "server/wire_status.h"

namespace lasp::server {
namespace {

// What may wait for an agent that does not read: more than a restart of every rank of a large host.
constexpr size_t kMaxQueuedMessages = 4'096;
constexpr size_t kMaxQueuedBytes = 16 << 20;
// A write that takes longer has met an agent that hangs.
constexpr absl::Duration kMaxWriteTime = absl::Seconds(15);

absl::Status AgentTooSlow() {
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         "the agent does not read its stream: connect again", "SLOW_READER");
}

}  // namespace

AgentStream* AgentStream::Open() {
  self_ = shared_from_this();
  if (const absl::Status added = parts_.streams->Add(self_, ""); added.ok()) {
    StartRead(&request_);
  } else {
    Close(added);
  }
  return this;
}

void AgentStream::Send(v1::ConnectResponse response) {
  const v1::ConnectResponse* first = nullptr;
  int64_t number = 0;
  {
    MutexLock lock(&mutex_);
    if (finished_ || end_status_.has_value()) {
      return;
    }
    const size_t bytes = response.ByteSizeLong();
    if (outgoing_.size() >= kMaxQueuedMessages || outgoing_bytes_ + bytes > kMaxQueuedBytes) {
      // What waits would only arrive late; the agent gets the present state when it comes again.
      // The message under way stays, for gRPC reads it.
      outgoing_.resize(1);
      end_status_ = AgentTooSlow();
      return;
    }
    outgoing_bytes_ += bytes;
    outgoing_.push_back(std::move(response));
    if (!writing_) {
      writing_ = true;
      write_start_ = parts_.clock->Monotonic();
      number = ++write_number_;
      first = &outgoing_.front();
    }
  }
  if (first != nullptr) {
    IssueWrite(first, number);
  }
}

void AgentStream::Close(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (!end_status_.has_value()) {
      end_status_ = status;
    }
    if (!TakeFinish()) {
      return;  // a write is under way or a message is being handled: they end the call
    }
  }
  EndCall();
}

bool AgentStream::TakeFinish() {
  if (finished_ || !end_status_.has_value() || writing_ || takers_ > 0) {
    return false;
  }
  finished_ = true;
  return true;
}

void AgentStream::EndCall() {
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    status = *end_status_;
  }
  Finish(ToWireStatus(status));
}

// The calls into gRPC are made without the lock: their reactions may run inside them.
void AgentStream::IssueWrite(const v1::ConnectResponse* message, int64_t number) {
  StartWrite(message);
  MutexLock lock(&mutex_);
  issued_write_ = std::max(issued_write_, number);
}

void AgentStream::OnTick(absl::Duration now) {
  {
    MutexLock lock(&mutex_);
    if (storing_ != nullptr) {
      // The delay is the coordinator's own, so it does not count against the agent.
      storing_->lease().Renew(*parts_.clock);
    }
    // Only once StartWrite has returned may Finish overtake the write.
    const bool stuck = writing_ && issued_write_ == write_number_ && takers_ == 0 &&
                       now - write_start_ > kMaxWriteTime;
    if (!stuck || finished_) {
      return;
    }
    end_status_ = AgentTooSlow();
    finished_ = true;
  }
  parts_.streams->CountEviction();
  EndCall();
}

void AgentStream::OnWriteDone(bool ok) {
  const v1::ConnectResponse* next = nullptr;
  int64_t number = 0;
  bool end = false;
  {
    MutexLock lock(&mutex_);
    outgoing_bytes_ -= outgoing_.front().ByteSizeLong();
    outgoing_.pop_front();
    writing_ = false;
    if (!ok && !end_status_.has_value()) {
      end_status_ = absl::CancelledError("the agent has left");
    }
    if (ok && !finished_ && !outgoing_.empty()) {
      writing_ = true;
      write_start_ = parts_.clock->Monotonic();
      number = ++write_number_;
      next = &outgoing_.front();
    }
    end = TakeFinish();
  }
  if (next != nullptr) {
    IssueWrite(next, number);
  } else if (end) {
    EndCall();
  }
}

void AgentStream::OnReadDone(bool ok) {
  if (!ok) {
    Close(absl::OkStatus());  // the agent has said all
    return;
  }
  // A Hello asks for the ends of its ranks' logs.
  const bool files = request_.has_log_chunk() || request_.has_hello();
  {
    MutexLock lock(&mutex_);
    ++takers_;
    storing_ = files ? session_ : nullptr;
  }
  if (files) {
    // The core opens files for it, which may wait for the disk. The next read starts after it, so
    // messages stay in order and one agent never has more than one task.
    parts_.log_pool->RunAlways([self = shared_from_this()] { self->Take(); });
  } else {
    Take();
  }
}

bool AgentStream::EndHold() {
  MutexLock lock(&mutex_);
  takers_ += finished_ ? 0 : 1;
  return !finished_;
}

bool AgentStream::AwaitRoom() {
  bool end = false;
  {
    MutexLock lock(&mutex_);
    storing_ = session_;
    // A stream that is held may end; its agent sends the message again on the next.
    --takers_;
    end = TakeFinish();
  }
  if (end) {
    EndCall();
    return false;
  }
  const bool room = parts_.core->controller().AwaitRoom([self = shared_from_this()] {
    // Not on the controller's thread. One task a stream, as for its logs.
    self->parts_.log_pool->RunAlways([self] {
      if (self->EndHold()) {
        self->Take();
      }
    });
  });
  return room && EndHold();
}

void AgentStream::Take() {
  if (session_ != nullptr && !request_.has_log_chunk() && !AwaitRoom()) {
    return;
  }
  const absl::Status status =
      session_ == nullptr ? TakeHello()
                          : parts_.core->controller().Deliver(session_, std::move(request_));
  bool read = false;
  {
    MutexLock lock(&mutex_);
    storing_ = nullptr;
    if (!status.ok() && !end_status_.has_value()) {
      end_status_ = status;
    }
    read = !end_status_.has_value();
  }
  if (read) {
    request_.Clear();
    StartRead(&request_);
  }
  {
    // Only now: until the next read has been started the call must not end under it.
    MutexLock lock(&mutex_);
    --takers_;
    if (!TakeFinish()) {
      return;
    }
  }
  EndCall();
}

absl::Status AgentStream::TakeHello() {
  if (!request_.has_hello()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           "the first message of an agent's stream must be Hello", "NO_HELLO");
  }
  const std::string& worker_id = request_.hello().worker_id();
  if (absl::Status certified = peer_.CheckWorkerId(worker_id); !certified.ok()) {
    parts_.core->refusals().Add({.principal = "", .role = "", .peer = host_},
                                "WorkerService.Connect", absl::StrCat("workers/", worker_id),
                                certified);
    return certified;
  }
  LASP_ASSIGN_OR_RETURN(session_, parts_.core->controller().Connect(
                                      std::move(*request_.mutable_hello()), shared_from_this()));
  return absl::OkStatus();
}

void AgentStream::OnCancel() { Close(absl::CancelledError("the agent has left")); }

void AgentStream::OnDone() {
  if (session_ != nullptr) {
    parts_.core->controller().Disconnect(session_);
  }
  parts_.streams->Remove(self_);
  // The core may still hold its reference; whoever drops the last one destroys the stream.
  const std::shared_ptr<AgentStream> last = std::move(self_);
}

}  // namespace lasp::server
