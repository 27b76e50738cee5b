// What waits for the controller's thread: commands, messages of agents, units that are durable.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "server/commit_unit.h"

namespace lasp::server {

class JobEngine;

// Thread-safe. Commands are bounded by their number, messages of agents by their bytes: a report
// may hold one step or thousands.
class ControllerInbox {
 public:
  enum class Kind {
    kCommand,
    kAgentMessage,
    // Of the controller's own; never refused for their number.
    kInternal,
  };

  struct Limits {
    size_t max_commands = 0;
    // Beyond it streams are held (AwaitRoom).
    size_t max_agent_bytes = 0;
  };

  struct Batch {
    std::deque<std::function<void(JobEngine&)>> inputs;
    std::deque<CommitUnit> committed;
    bool stopping = false;
  };

  // A message counts as at least this much.
  static constexpr size_t kMinMessageBytes = 512;

  explicit ControllerInbox(const Limits& limits) : limits_(limits) {}

  // UNAVAILABLE after Stop, RESOURCE_EXHAUSTED for a command too many, or for an agent's message
  // while twice max_agent_bytes wait, which those who ask AwaitRoom before each do not meet.
  absl::Status Add(Kind kind, size_t bytes, std::function<void(JobEngine&)> work);

  // Whether an agent's message may be added now. Where not, `resume` is kept and called once, from
  // the controller's thread, when there is room again: ask anew then, for others may have been
  // faster. After Stop it is dropped.
  bool AwaitRoom(std::function<void()> resume);

  // The oldest unit of AddPending is durable. Nothing where it has been dropped.
  void PendingCommitted();

  // Nothing more is taken in, and the controller's thread is told.
  void Stop();

  // --- the controller's thread ---

  // Waits until `deadline` (SystemClock) for something to do, and takes it: at most `max_inputs`
  // inputs, none unless `decide`. Resumes some of those held where there is room again.
  Batch Take(bool decide, size_t max_inputs, absl::Duration deadline);
  // A unit whose mutations go to the store, in this order.
  void AddPending(CommitUnit unit);
  // A unit that need not wait.
  void AddCommitted(CommitUnit unit);
  // Units alone; waits at most `patience` for the first.
  std::deque<CommitUnit> TakeCommitted(absl::Duration patience);
  // After Stop: drops what waits, the units that are not durable with it.
  void Clear();

  size_t command_count() const;
  size_t agent_message_count() const;
  size_t agent_bytes() const;

 private:
  struct Input {
    Kind kind;
    size_t bytes = 0;
    std::function<void(JobEngine&)> work;
  };

  bool MayResume() const REQUIRES_LOCK(mutex_);

  const Limits limits_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<Input> inputs_ GUARDED_BY(mutex_);
  std::deque<CommitUnit> pending_ GUARDED_BY(mutex_);
  std::deque<CommitUnit> committed_ GUARDED_BY(mutex_);
  // First held, first resumed.
  std::deque<std::function<void()>> held_ GUARDED_BY(mutex_);
  size_t commands_ GUARDED_BY(mutex_) = 0;
  size_t agent_messages_ GUARDED_BY(mutex_) = 0;
  size_t agent_bytes_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace lasp::server
