// What the agent has to say to the coordinator, in the order of its urgency: the greeting, what
// ranks wait for, heartbeats, reports, logs. It outlives streams; what a broken one may have lost
// goes again.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "worker/agent/log_reader.h"
#include "worker/agent/log_shipper.h"
#include "worker/agent/report_buffer.h"

namespace lasp::worker {

// Thread-safe.
class Outbox {
 public:
  // `heartbeat` makes the content of one; called without a lock held. All outlive the outbox.
  Outbox(LogShipper* logs, const Clock* clock, std::function<lasp::v1::Heartbeat()> heartbeat,
         const ReportLimits& limits = {});

  // Has the logs read on a thread of its own, not by whoever asks for a message. Before the first.
  void ReadLogsOnThread();

  // A stream begins with `hello`; nothing else goes until it is welcomed.
  void BeginSession(lasp::v1::ConnectRequest hello);
  void Welcome(absl::Duration heartbeat_interval);
  void EndSession();
  bool welcomed() const;

  // Said once, on this stream; dropped where none is welcomed.
  void AddControl(lasp::v1::ConnectRequest message);
  void AddStep(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step);
  void AddShard(lasp::v1::ShardWritten shard);
  void AddExit(lasp::v1::RankExited exited);
  void Acknowledge(int64_t sequence);

  // The next message, waiting at most `max_wait` for one to be due.
  std::optional<lasp::v1::ConnectRequest> Next(absl::Duration max_wait);
  // Ends a wait.
  void Wake();

  // As ReportBuffer::EndedRanks.
  std::vector<lasp::v1::RankStatus> EndedRanks() const;
  // Whether every report is acknowledged.
  bool AllAcknowledged() const;
  // Steps in the buffer, and how many were thinned away.
  size_t buffered_steps() const;
  int64_t thinned_steps() const;

 private:
  void NoteChange() REQUIRES_LOCK(mutex_);
  std::optional<lasp::v1::LogChunk> NextLog();
  std::optional<lasp::v1::ConnectRequest> NextUrgent(absl::Duration now, bool* heartbeat_due)
      REQUIRES_LOCK(mutex_);

  LogShipper* const logs_;
  const Clock* const clock_;
  const std::function<lasp::v1::Heartbeat()> heartbeat_;

  mutable Mutex mutex_;
  CondVar changed_;
  bool woken_ GUARDED_BY(mutex_) = false;
  // Counts what was added, so that a waiter misses nothing.
  int64_t changes_ GUARDED_BY(mutex_) = 0;
  bool welcomed_ GUARDED_BY(mutex_) = false;
  int64_t next_sequence_ GUARDED_BY(mutex_) = 1;
  std::deque<lasp::v1::ConnectRequest> control_ GUARDED_BY(mutex_);
  ReportBuffer reports_ GUARDED_BY(mutex_);
  absl::Duration heartbeat_interval_ GUARDED_BY(mutex_) = absl::Seconds(3);
  absl::Duration next_heartbeat_ GUARDED_BY(mutex_);
  // Null where logs are not read on a thread. Last, since that tells of a change.
  std::unique_ptr<LogReader> log_reader_;
};

}  // namespace lasp::worker
