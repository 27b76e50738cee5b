#include "server/open_streams.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

OpenStreams::OpenStreams(const Clock* clock, std::function<void()> on_eviction,
                         std::function<void()> on_refusal, int max_a_principal, absl::Duration tick)
    : clock_(clock),
      on_eviction_(std::move(on_eviction)),
      on_refusal_(std::move(on_refusal)),
      max_a_principal_(max_a_principal),
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

absl::Status OpenStreams::Add(const std::shared_ptr<OpenStream>& stream,
                              const std::string& principal) {
  MutexLock lock(&mutex_);
  if (closing_) {
    return absl::UnavailableError("the coordinator is stopping: connect again in a moment");
  }
  if (!principal.empty()) {
    int& count = count_by_principal_[principal];
    if (count >= max_a_principal_) {
      on_refusal_();
      return ErrorWithReason(
          absl::StatusCode::kResourceExhausted,
          absl::StrCat(principal, " has ", count,
                       " streams open, all that the coordinator's --max_streams_a_principal "
                       "allows: end some"),
          "TOO_MANY_STREAMS");
    }
    ++count;
  }
  streams_.emplace(stream, principal);
  return absl::OkStatus();
}

void OpenStreams::Remove(const std::shared_ptr<OpenStream>& stream) {
  MutexLock lock(&mutex_);
  const auto found = streams_.find(stream);
  if (found == streams_.end()) {
    return;  // refused
  }
  const auto count = count_by_principal_.find(found->second);
  if (count != count_by_principal_.end() && --count->second == 0) {
    count_by_principal_.erase(count);
  }
  streams_.erase(found);
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
  std::vector<std::shared_ptr<OpenStream>> streams;
  streams.reserve(streams_.size());
  for (const auto& [stream, principal] : streams_) {
    streams.push_back(stream);
  }
  return streams;
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
