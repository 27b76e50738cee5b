// A server stream that pulls: it asks for the next messages only when the last ones have gone out,
// so a slow reader holds one batch and nothing else.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "server/open_streams.h"
#include "server/task_pool.h"
#include "server/wire_status.h"

namespace lasp::server {

// Derive, implement Pull, make it with std::make_shared and call Open. The object lives until the
// call has ended and its last pull is over. Thread-safe.
template <typename Response>
class PullStream : public grpc::ServerWriteReactor<Response>,
                   public OpenStream,
                   public std::enable_shared_from_this<PullStream<Response>> {
 public:
  // A write that waits for its reader longer than `slow_reader_limit` ends the stream with
  // SlowReader.
  PullStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit)
      : streams_(streams), pool_(pool), slow_reader_limit_(slow_reader_limit) {}

  // Before Open: asked every second, and the stream ends with what is not OK. May be empty.
  void KeepWhile(std::function<absl::Status()> condition) { condition_ = std::move(condition); }

  // Begins the stream of `principal`; returns the reactor to hand to gRPC. The derived class may be
  // woken from here on.
  grpc::ServerWriteReactor<Response>* Open(const std::string& principal) {
    self_ = this->shared_from_this();
    if (const absl::Status added = streams_->Add(self_, principal); added.ok()) {
      Wake();
    } else {
      CloseStream(added);
    }
    return this;
  }

  // There may be more to pull. Never blocks, never destroys the stream.
  void Wake() {
    std::shared_ptr<PullStream> self;
    {
      MutexLock lock(&mutex_);
      woken_ = true;
      if (closed_ || phase_ != Phase::kIdle) {
        return;
      }
      // Null while the stream is being destroyed: a subscription may still call then.
      self = this->weak_from_this().lock();
      if (self == nullptr) {
        return;
      }
      phase_ = Phase::kPulling;
    }
    pool_->RunAlways([self = std::move(self)] { self->PullAndWrite(); });
  }

  void CloseStream(const absl::Status& status) override {
    {
      MutexLock lock(&mutex_);
      if (closed_) {
        return;
      }
      closed_ = true;
      end_status_ = status;
      if (phase_ != Phase::kIdle) {
        return;  // whoever pulls or writes ends the call
      }
      finished_ = true;
    }
    this->Finish(ToWireStatus(status));
  }

  void OnTick(absl::Duration now) override {
    if (condition_ != nullptr) {
      if (const absl::Status status = condition_(); !status.ok()) {
        CloseStream(status);
      }
    }
    {
      MutexLock lock(&mutex_);
      // Only once StartWrite has returned may Finish overtake the write.
      const bool stuck = phase_ == Phase::kWriting && issued_write_ == write_number_ &&
                         now - write_start_ > slow_reader_limit_;
      if (!stuck || finished_) {
        return;
      }
      closed_ = true;
      finished_ = true;
    }
    streams_->CountEviction();
    this->Finish(ToWireStatus(SlowReader()));
  }

  void OnWriteDone(bool ok) final {
    std::optional<absl::Status> end;
    const Response* next = nullptr;
    int64_t number = 0;
    {
      MutexLock lock(&mutex_);
      if (finished_) {
        return;
      }
      if (!ok && !closed_) {
        closed_ = true;
        end_status_ = absl::CancelledError("the client has left");
      }
      if (closed_) {
        finished_ = true;
        end = end_status_;
      } else if (++next_ < batch_.size()) {
        next = &batch_[next_];
        number = BeginWrite();
      } else {
        phase_ = Phase::kPulling;
      }
    }
    if (end.has_value()) {
      this->Finish(ToWireStatus(*end));
    } else if (next != nullptr) {
      IssueWrite(next, number);
    } else {
      pool_->RunAlways([self = this->shared_from_this()] { self->PullAndWrite(); });
    }
  }

  void OnCancel() final { CloseStream(absl::CancelledError("the client has left")); }

  void OnDone() final {
    streams_->Remove(self_);
    // Whoever holds the last reference (a pull that is still running, perhaps) destroys the stream.
    const std::shared_ptr<PullStream> last = std::move(self_);
  }

 protected:
  // Appends the next messages, in order, to `batch`, and returns whether the stream goes on:
  // nullopt to write the batch and wait (for Wake when it is empty), or the status to end with when
  // the batch is out. Runs on the pool, one call at a time.
  virtual std::optional<absl::Status> Pull(std::vector<Response>* batch) = 0;

 private:
  enum class Phase { kIdle, kPulling, kWriting };

  int64_t BeginWrite() REQUIRES_LOCK(mutex_) {
    phase_ = Phase::kWriting;
    write_start_ = streams_->clock().Monotonic();
    return ++write_number_;
  }

  // The calls into gRPC are made without the lock: their reactions may run inside them.
  void IssueWrite(const Response* message, int64_t number) {
    // Without gRPC's hint that more follows: a write so hinted may not be done before the next one
    // begins, and here the next one waits for it.
    this->StartWrite(message);
    MutexLock lock(&mutex_);
    issued_write_ = std::max(issued_write_, number);
  }

  void PullAndWrite() {
    while (true) {
      bool closed = false;
      {
        MutexLock lock(&mutex_);
        woken_ = false;
        closed = closed_;
      }
      std::vector<Response> batch;
      std::optional<absl::Status> end = last_status_;
      if (!closed && !end.has_value()) {
        end = Pull(&batch);
      }
      const Response* first = nullptr;
      int64_t number = 0;
      {
        MutexLock lock(&mutex_);
        if (!closed_ && !batch.empty()) {
          batch_ = std::move(batch);
          next_ = 0;
          last_status_ = std::move(end);
          first = &batch_[0];
          number = BeginWrite();
        } else if (!closed_ && end.has_value()) {
          closed_ = true;
          end_status_ = *end;
        } else if (!closed_ && woken_) {
          continue;
        } else if (!closed_) {
          phase_ = Phase::kIdle;
          return;
        }
        finished_ = closed_;
      }
      if (first != nullptr) {
        IssueWrite(first, number);
      } else {
        this->Finish(ToWireStatus(end_status_));
      }
      return;
    }
  }

  OpenStreams* const streams_;
  TaskPool* const pool_;
  const absl::Duration slow_reader_limit_;
  std::function<absl::Status()> condition_;
  // Keeps the stream alive while gRPC knows it; cleared by OnDone.
  std::shared_ptr<PullStream> self_;
  Mutex mutex_;
  Phase phase_ GUARDED_BY(mutex_) = Phase::kIdle;
  // Wake was called since the last pull began.
  bool woken_ GUARDED_BY(mutex_) = false;
  // The call is to end with end_status_.
  bool closed_ GUARDED_BY(mutex_) = false;
  // Finish has been called or is about to be.
  bool finished_ GUARDED_BY(mutex_) = false;
  absl::Status end_status_;
  absl::Duration write_start_ GUARDED_BY(mutex_);
  int64_t write_number_ GUARDED_BY(mutex_) = 0;
  int64_t issued_write_ GUARDED_BY(mutex_) = 0;
  // Owned by the pull, then by the writes.
  std::vector<Response> batch_;
  size_t next_ = 0;
  // Pull's last word, once its batch is out.
  std::optional<absl::Status> last_status_;
};

}  // namespace lasp::server
