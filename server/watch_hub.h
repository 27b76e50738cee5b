// Watches over the job catalogue. A watch is a cursor, not a queue: it holds one revision, and what
// it has missed is found in the catalogue, each job once however often it changed. A slow watcher
// therefore costs no memory; it is ended only where deletions have been forgotten meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "server/job_catalog.h"

namespace lasp::server {

class WatchHub;

// What a watch gives next, in order.
struct WatchBatch {
  std::vector<JobChange> changes;
  // Send a bookmark after the changes.
  bool bookmark = false;
  // The bookmark that ends the initial snapshot.
  bool snapshot_end = false;
  // Where a later watch goes on after this batch. (After one change of it: ResumeToken(revision).)
  std::string resume_token;
};

// One watcher's cursor. Next is called by one thread at a time; destruction from any thread, but
// not from within the watch's own callback.
class Watch {
 public:
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // At most `limit` changes. An empty batch without a bookmark means that there is nothing now:
  // `on_ready` will be called when there is. OUT_OF_RANGE as Subscribe, where the watcher has
  // fallen so far behind that deletions it was not told of are forgotten.
  absl::StatusOr<WatchBatch> Next(int limit);

 private:
  friend class WatchHub;
  struct Subscription;

  Watch(WatchHub* hub, std::shared_ptr<Subscription> subscription)
      : hub_(hub), subscription_(std::move(subscription)) {}

  WatchHub* const hub_;
  const std::shared_ptr<Subscription> subscription_;
};

// Thread-safe. Must outlive its watches.
class WatchHub {
 public:
  // `store_uuid` ties tokens to one store.
  WatchHub(const JobCatalog* catalog, std::string store_uuid, const Clock* clock,
           absl::Duration bookmark_interval);
  ~WatchHub();

  // Starts a watch: with an empty token the present jobs first, then snapshot_end, then changes;
  // otherwise the changes since the token. `on_ready` is called from the core's threads, without
  // locks held, when there is something after a Next that found nothing (seldom also when there is
  // not); it must not block. Call Next first.
  // INVALID_ARGUMENT for what is no token, OUT_OF_RANGE (RESUME_TOKEN_EXPIRED) for one of another
  // store or older than the deletions kept.
  absl::StatusOr<std::unique_ptr<Watch>> Subscribe(const std::string& resume_token,
                                                   std::function<void()> on_ready);

  // The token of a list or of a single change at `revision`.
  std::string ResumeToken(int64_t revision) const;

  size_t watch_count() const;

  // --- the controller's side ---
  // The catalogue has changed.
  void Notify();
  // Makes due bookmarks ready; called every second or so.
  void Tick();

 private:
  friend class Watch;
  using Subscription = Watch::Subscription;

  absl::StatusOr<int64_t> ParseToken(const std::string& token) const;
  void Remove(const std::shared_ptr<Subscription>& subscription);

  const JobCatalog* const catalog_;
  const std::string store_uuid_;
  const Clock* const clock_;
  const absl::Duration bookmark_interval_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<Subscription>> subscriptions_ GUARDED_BY(mutex_);
};

}  // namespace lasp::server
