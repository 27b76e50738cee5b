// Every long-lived stream of the coordinator: they are ended together when it stops, and one whose
// client has stopped reading is ended before it costs more.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// What the registry asks of a stream. Thread-safe; no call blocks.
class OpenStream {
 public:
  virtual ~OpenStream() = default;

  // Ends the stream with `status`, at the latest after the write that is under way.
  virtual void CloseStream(const absl::Status& status) = 0;

  // Every second.
  virtual void OnTick(absl::Duration now) = 0;
};

// Thread-safe.
class OpenStreams {
 public:
  // `on_eviction` is called whenever a stream ends because its client does not read, `on_refusal`
  // whenever one is refused because its principal has `max_a_principal` already.
  OpenStreams(const Clock* clock, std::function<void()> on_eviction,
              std::function<void()> on_refusal, int max_a_principal,
              absl::Duration tick = absl::Seconds(1));
  ~OpenStreams();
  OpenStreams(const OpenStreams&) = delete;
  OpenStreams& operator=(const OpenStreams&) = delete;

  // The stream must be refused with the error: UNAVAILABLE when the coordinator is stopping,
  // RESOURCE_EXHAUSTED with reason TOO_MANY_STREAMS where `principal` has as many as it may. An
  // empty one (agents, which have one stream each) has no limit.
  [[nodiscard]] absl::Status Add(const std::shared_ptr<OpenStream>& stream,
                                 const std::string& principal);
  void Remove(const std::shared_ptr<OpenStream>& stream);

  // Ends all streams with `status` and refuses new ones.
  void CloseAll(const absl::Status& status);

  // A stream says that it ends because its client does not read.
  void CountEviction() { on_eviction_(); }

  size_t size() const;

  const Clock& clock() const { return *clock_; }

 private:
  std::vector<std::shared_ptr<OpenStream>> Snapshot() const;
  void Tick();

  const Clock* const clock_;
  const std::function<void()> on_eviction_;
  const std::function<void()> on_refusal_;
  const int max_a_principal_;
  const absl::Duration tick_;
  mutable Mutex mutex_;
  CondVar stop_;
  bool closing_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  // With their principals.
  std::unordered_map<std::shared_ptr<OpenStream>, std::string> streams_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, int> count_by_principal_ GUARDED_BY(mutex_);
  std::thread thread_;
};

// The error of a stream whose client does not read: RESOURCE_EXHAUSTED with reason SLOW_READER.
absl::Status SlowReader();

}  // namespace lasp::server
