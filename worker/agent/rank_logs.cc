#include "worker/agent/rank_logs.h"

#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

RankLogs::RankLogs(const RankLogsOptions& options, const Clock* clock)
    : retention_(options.retention),
      retained_bytes_(options.retained_bytes),
      folder_(options.folder, options.limits),
      shipper_(options.ship_bytes_per_second, clock) {
  folder_.RemoveOld(retention_, retained_bytes_);
  for (FencedLog& log : folder_.Unshipped()) {
    shipper_.Add(std::move(log));
  }
}

absl::StatusOr<FencedLog> RankLogs::Prepare(const lasp::v1::Fence& fence) {
  folder_.RemoveOld(retention_, retained_bytes_);
  FencedLog log;
  log.fence = fence;
  LASP_ASSIGN_OR_RETURN(log.log, folder_.Create(fence));
  return log;
}

void RankLogs::Attach(FencedLog log, UniqueFd pipe) {
  collector_.Add(std::move(pipe), log.log);
  shipper_.Add(std::move(log));
}

}  // namespace lasp::worker
