// What the thread that watches over a rank's communication asks of each part of it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "worker/parallel/stream_progress.h"

namespace lasp::worker {

// Thread-safe.
class WatchedGroup {
 public:
  virtual ~WatchedGroup() = default;

  virtual const std::string& name() const = 0;
  // What is known to be wrong with work under way, or was before.
  virtual absl::Status AsyncStatus() = 0;
  virtual StreamProgress::Numbers progress() const = 0;
  // Ends everything under way with `why`; later operations fail with it at once. Waits for nothing.
  virtual void Abort(const absl::Status& why) = 0;
};

}  // namespace lasp::worker
