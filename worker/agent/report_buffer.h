// What must not be lost on the way to the coordinator: every step and every exit, kept until it is
// acknowledged. While the coordinator is away steps pile up; beyond a limit the oldest are thinned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

struct ReportLimits {
  // Steps kept; above it every second of the older half goes.
  size_t max_steps = 100'000;
  // Steps of one message, and messages on their way.
  size_t max_steps_a_message = 2'000;
  size_t max_unacknowledged_messages = 8;
  // Between two messages that are not full.
  absl::Duration interval = absl::Seconds(1);
};

// Messages go out in the order in which their content came. Not thread-safe.
class ReportBuffer {
 public:
  explicit ReportBuffer(const ReportLimits& limits = {}) : limits_(limits) {}

  void AddStep(std::shared_ptr<const lasp::v1::Fence> fence, lasp::v1::StepMetrics step);
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

  bool empty() const { return entries_.empty(); }

  size_t step_count() const { return step_count_; }

  int64_t thinned_steps() const { return thinned_steps_; }

 private:
  struct Step {
    std::shared_ptr<const lasp::v1::Fence> fence;
    lasp::v1::StepMetrics metrics;
  };

  struct Entry {
    std::variant<Step, lasp::v1::RankExited> report;
    // Of the message that carried it; 0 before the first time.
    int64_t sequence = 0;
  };

  // One past the last entry of the message that begins with entry `begin`.
  size_t MessageEnd(size_t begin) const;
  bool IsDue(size_t begin, size_t end, absl::Duration now) const;
  lasp::v1::ConnectRequest Compose(size_t begin, size_t end) const;
  void Thin();

  const ReportLimits limits_;
  std::deque<Entry> entries_;
  size_t step_count_ = 0;
  int64_t thinned_steps_ = 0;
  // Entries before it are on their way on this stream, in so many messages.
  size_t sent_ = 0;
  std::deque<int64_t> unacknowledged_;
  absl::Duration last_message_at_ = -absl::InfiniteDuration();
};

}  // namespace lasp::worker
