// What must not be lost on the way to the coordinator: every step, every shard of a checkpoint and
// every exit, kept until it is acknowledged. While the coordinator is away steps pile up; beyond a
// limit the oldest are thinned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

struct ReportLimits {
  // Steps kept; above it every second of the older half goes.
  size_t max_steps = 100'000;
  // Steps of one message (some 30 KiB: the coordinator bounds by bytes what it has not worked off),
  // and messages on their way.
  size_t max_steps_a_message = 200;
  size_t max_unacknowledged_messages = 8;
  // Between two messages that are not full.
  absl::Duration interval = absl::Seconds(1);
};

// Steps are gathered into one message a rank from one sending to the next; a rank's messages go in
// the order in which their content came. Not thread-safe.
class ReportBuffer {
 public:
  explicit ReportBuffer(const ReportLimits& limits = {}) : limits_(limits) {}

  void AddStep(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step);
  // They go at once, and what came before them.
  void AddShard(lasp::v1::ShardWritten shard);
  void AddExit(lasp::v1::RankExited exited);

  // A new stream: what is not acknowledged goes again, under its old numbers.
  void BeginSession();
  // All reports that went on this stream up to `sequence` are stored.
  void Acknowledge(int64_t sequence);

  // The next message due at `now` (monotonic). `next_sequence` is read and raised where the message
  // goes out for the first time.
  std::optional<lasp::v1::ConnectRequest> Next(absl::Duration now, int64_t* next_sequence);
  // When Next may have one; InfiniteDuration where only something new or an acknowledgement helps.
  absl::Duration NextDue() const;

  // The ranks whose exits have never been sent, as a greeting lists them: each once, in the order
  // in which they ended; without those that were never given a slot. One that was sent goes again
  // among the first messages, and may be stored: its slot may be another's.
  std::vector<lasp::v1::RankStatus> EndedRanks() const;

  bool empty() const { return messages_.empty(); }

  size_t step_count() const { return step_count_; }

  int64_t thinned_steps() const { return thinned_steps_; }

 private:
  // Into the message of the rank that is still open, or a new one.
  void Append(const lasp::v1::Fence& fence, lasp::v1::StepMetrics step);
  bool IsFull(const lasp::v1::ConnectRequest& message) const;
  void Thin();

  const ReportLimits limits_;
  // Step reports, shards and exits; their sequence is 0 before the first time.
  std::deque<lasp::v1::ConnectRequest> messages_;
  size_t step_count_ = 0;
  int64_t thinned_steps_ = 0;
  // So many at the front are on their way on this stream, and so many need not wait.
  size_t sent_ = 0;
  size_t due_ = 0;
  std::deque<int64_t> unacknowledged_;
  absl::Duration last_message_at_ = -absl::InfiniteDuration();
};

}  // namespace lasp::worker
