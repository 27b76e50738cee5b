// The logs of ranks: segment files per job, generation and rank, appended by offset.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// One rank's log: data_dir/logs/{uid}/gen-{generation}/rank-{rank}/{start offset}.log.
struct LogKey {
  std::string uid;
  int64_t generation = 0;
  int rank = 0;

  auto operator<=>(const LogKey&) const = default;
};

// One whole line, without its time stamp and line feed.
struct StoredLine {
  // Of the line's first byte in the rank's log.
  int64_t offset = 0;
  absl::Time time;
  std::string text;
};

struct LogPage {
  std::vector<StoredLine> lines;
  // Where to read on.
  int64_t next_offset = 0;
  // Nothing more is stored now.
  bool at_end = false;
};

// Thread-safe: a rank's log is under a lock of its own. Calls block on the file system's cache.
class LogStore {
 public:
  // Tells about new lines while it lives. Its destruction waits for a callback in progress.
  class Subscription {
   public:
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

   private:
    friend class LogStore;
    struct State;

    Subscription(LogStore* store, std::shared_ptr<State> state)
        : store_(store), state_(std::move(state)) {}

    LogStore* const store_;
    const std::shared_ptr<State> state_;
  };

  // Keeps at most `max_bytes` of a rank's log, in files of `segment_bytes`; the oldest go first.
  LogStore(std::string directory, int64_t max_bytes, int64_t segment_bytes);

  // Appends what of `data` lies at or after the end and gives the new end: sending a chunk twice
  // changes nothing. A chunk that begins beyond the end is not taken: the answer is the present
  // end, from which the agent must send again. `uid` must be that of a job that exists.
  absl::StatusOr<int64_t> Append(const LogKey& key, int64_t offset, absl::string_view data);

  // The end of a rank's log; 0 where there is none.
  absl::StatusOr<int64_t> End(const LogKey& key);

  // Whole lines from `offset` on (a line's start, or 0), at most about `max_bytes` of them, leaving
  // out those before `since`. What has been rotated away is skipped.
  absl::StatusOr<LogPage> Read(const LogKey& key, int64_t offset, int64_t max_bytes,
                               absl::Time since = absl::InfinitePast());

  // Where the last `lines` lines begin.
  absl::StatusOr<int64_t> TailOffset(const LogKey& key, int lines);

  // The ranks of a generation that have logs, in order.
  std::vector<int> Ranks(const std::string& uid, int64_t generation);

  // `on_lines` is called after an append to any log of the job: quick, must not block. Subscribe
  // first, then read to the end.
  std::unique_ptr<Subscription> Subscribe(const std::string& uid, std::function<void()> on_lines);
  size_t subscription_count() const;
  // Calls the job's subscribers as an append would, for example when the job has ended.
  void Notify(const std::string& uid);

  // Removes one file of a rank's log, the one that begins at `start`. What is read on skips it, and
  // what is appended afterwards keeps its offsets.
  void RemoveSegment(const LogKey& key, int64_t start);

  // Removes all logs of a job.
  void DeleteJob(const std::string& uid);

 private:
  struct RankLog;

  std::shared_ptr<RankLog> Open(const LogKey& key);
  std::string JobDirectory(const std::string& uid) const;
  std::string RankDirectory(const LogKey& key) const;

  const std::string directory_;
  const int64_t max_bytes_;
  const int64_t segment_bytes_;
  mutable Mutex mutex_;
  // What is known of logs in use; a bounded cache of what the folders say.
  std::map<LogKey, std::shared_ptr<RankLog>> logs_ GUARDED_BY(mutex_);
  std::multimap<std::string, std::shared_ptr<Subscription::State>> subscriptions_
      GUARDED_BY(mutex_);
};

}  // namespace lasp::server
