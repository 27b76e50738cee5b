// A clock whose hands tests turn.
#pragma once

#include <atomic>
#include <cstdint>

#include "proto/rpc/clock.h"

namespace lasp::testing {

// Thread-safe.
class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(1'800'000'000) + elapsed(); }

  absl::Duration Monotonic() const override { return absl::Hours(1) + elapsed(); }

  void Advance(absl::Duration duration) { elapsed_nanos_ += absl::ToInt64Nanoseconds(duration); }

 private:
  absl::Duration elapsed() const { return absl::Nanoseconds(elapsed_nanos_.load()); }

  std::atomic<int64_t> elapsed_nanos_{0};
};

}  // namespace lasp::testing
