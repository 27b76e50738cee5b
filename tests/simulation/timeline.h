// The virtual time: what happens next happens at once.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"

namespace lasp::simulation {

// Not thread-safe, as all of a simulation.
class Timeline {
 public:
  // Since the world began.
  absl::Duration now() const { return absl::Nanoseconds(now_); }

  void After(absl::Duration delay, std::function<void()> run) {
    const int64_t nanos = absl::ToInt64Nanoseconds(delay);
    events_.push({now_ + (nanos > 0 ? nanos : 0), next_number_++, std::move(run)});
  }

  // Whether there was something left to happen.
  bool RunNext() {
    if (events_.empty()) {
      return false;
    }
    // Moved out of the queue, which gives its top away as const only.
    Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    now_ = event.time;
    event.run();
    return true;
  }

 private:
  struct Event {
    int64_t time;
    // What was planned first happens first.
    int64_t number;
    std::function<void()> run;

    bool operator<(const Event& other) const {
      return time != other.time ? time > other.time : number > other.number;
    }
  };

  int64_t now_ = 0;
  int64_t next_number_ = 0;
  std::priority_queue<Event> events_;
};

// What one process sees of the virtual time.
class VirtualClock final : public Clock {
 public:
  VirtualClock(const Timeline* timeline, absl::Duration monotonic_start)
      : timeline_(timeline), start_(monotonic_start) {}

  absl::Time Now() const override {
    return absl::FromUnixSeconds(1'800'000'000) + timeline_->now() + wall_offset_;
  }

  absl::Duration Monotonic() const override { return start_ + timeline_->now(); }

  // The wall clock is set; the monotonic one never jumps.
  void Jump(absl::Duration by) { wall_offset_ += by; }

 private:
  const Timeline* const timeline_;
  const absl::Duration start_;
  absl::Duration wall_offset_;
};

}  // namespace lasp::simulation
