// The logs of this agent's ranks from pipe to coordinator: collected, kept, shipped.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/rpc/clock.h"
#include "worker/agent/log_collector.h"
#include "worker/agent/log_folder.h"
#include "worker/agent/log_shipper.h"

namespace lasp::worker {

struct RankLogsOptions {
  std::string folder;
  RankLogLimits limits = {};
  int64_t ship_bytes_per_second = 4 << 20;
  // Logs nobody has written to for so long are removed.
  absl::Duration retention = absl::Hours(24 * 7);
  // Of those of ranks that have ended, the oldest are removed beyond it.
  int64_t retained_bytes = int64_t{16} << 30;
};

// Thread-safe.
class RankLogs {
 public:
  // Takes up what an earlier agent has left unshipped. `clock` outlives it.
  RankLogs(const RankLogsOptions& options, const Clock* clock);

  // Before a rank starts, so that one that cannot be logged is not started. Old logs make room.
  absl::StatusOr<FencedLog> Prepare(const lasp::v1::Fence& fence);
  // When it has started; `pipe` is its output.
  void Attach(FencedLog log, UniqueFd pipe);

  LogShipper& shipper() { return shipper_; }

  LogCollector& collector() { return collector_; }

 private:
  const absl::Duration retention_;
  const int64_t retained_bytes_;
  LogFolder folder_;
  LogShipper shipper_;
  LogCollector collector_;
};

}  // namespace lasp::worker
