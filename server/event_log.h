// The latest events of jobs and workers, in memory, and those who follow them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/event.pb.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

using EventPtr = std::shared_ptr<const lasp::v1::Event>;

// Thread-safe. A call holds the lock for a time bounded by the capacity: it copies pointers. A
// follower is a cursor, not a queue: a slow one costs no memory.
class EventLog {
 public:
  // One follower's place. Next is called by one thread at a time; destruction from any thread, but
  // not from within its own callback.
  class Subscription {
   public:
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // At most `limit` events, oldest first, each once. None means that there is nothing now:
    // `on_ready` will be called when there is. OUT_OF_RANGE as Subscribe, where the follower has
    // fallen that far behind.
    absl::StatusOr<std::vector<EventPtr>> Next(int limit);

   private:
    friend class EventLog;
    struct State;

    Subscription(EventLog* log, std::shared_ptr<State> state)
        : log_(log), state_(std::move(state)) {}

    EventLog* const log_;
    const std::shared_ptr<State> state_;
  };

  // Holds the latest `capacity` (> 0) events.
  explicit EventLog(size_t capacity);
  ~EventLog();

  // All it holds with a sequence below `before`, oldest first.
  std::vector<EventPtr> Before(int64_t before) const;
  // A follower that begins after this misses nothing that a later Before shows.
  int64_t newest() const;

  // Follows the events after `after`, a sequence. OUT_OF_RANGE (RESUME_TOKEN_EXPIRED) where some of
  // them are forgotten, or where there never was such a sequence. `on_ready` is called from the
  // core's threads, without the log's lock held; it must not block. Call Next first.
  absl::StatusOr<std::unique_ptr<Subscription>> Subscribe(int64_t after,
                                                          std::function<void()> on_ready);

  size_t subscription_count() const;

  // --- the controller's side ---
  // At start, before anything else: the latest events of earlier runs, oldest first. `newest` is
  // at least their last one's sequence; `complete` says that there were no older ones.
  void Restore(std::vector<lasp::v1::Event> events, int64_t newest, bool complete);
  // What has been committed, by sequence.
  void Append(const std::vector<lasp::v1::Event>& events);

 private:
  void Push(lasp::v1::Event event) REQUIRES_LOCK(mutex_);
  absl::Status CheckCursor(int64_t after) const REQUIRES_LOCK(mutex_);

  const size_t capacity_;
  mutable Mutex mutex_;
  // By sequence.
  std::deque<EventPtr> events_ GUARDED_BY(mutex_);
  int64_t newest_ GUARDED_BY(mutex_) = 0;
  // Events up to here are not all held.
  int64_t forgotten_ GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<Subscription::State>> subscriptions_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
