#include "server/open_streams.h"

#include <vector>

#include "proto/rpc/error_details.h"

namespace lasp::server {

OpenStreams::OpenStreams(const Clock* clock, std::function<void()> on_eviction, absl::Duration tick)
    : clock_(clock),
      on_eviction_(std::move(on_eviction)),
      tick_(tick),
      thread_([this] { Tick(); }) {}

OpenStreams::~OpenStreams() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    stop_.NotifyAll();
  }
  thread_.join();
}

bool OpenStreams::Add(const std::shared_ptr<OpenStream>& stream) {
  MutexLock lock(&mutex_);
  if (closing_) {
    return false;
  }
  streams_.insert(stream);
  return true;
}

void OpenStreams::Remove(const std::shared_ptr<OpenStream>& stream) {
  MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void OpenStreams::CloseAll(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
  }
  for (const auto& stream : Snapshot()) {
    stream->CloseStream(status);
  }
}

size_t OpenStreams::size() const {
  MutexLock lock(&mutex_);
  return streams_.size();
}

std::vector<std::shared_ptr<OpenStream>> OpenStreams::Snapshot() const {
  MutexLock lock(&mutex_);
  return {streams_.begin(), streams_.end()};
}

void OpenStreams::Tick() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopping_) {
        stop_.WaitWithTimeout(&mutex_, tick_);
      }
      if (stopping_) {
        return;
      }
    }
    const absl::Duration now = clock_->Monotonic();
    for (const auto& stream : Snapshot()) {
      stream->OnTick(now);
    }
  }
}

absl::Status SlowReader() {
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         "the client reads too slowly: connect again with the last resume token",
                         "SLOW_READER");
}

}  // namespace lasp::server
