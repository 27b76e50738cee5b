// One user's view of a job's logs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lasp/v1/log_service.pb.h"
#include "server/log_cursor.h"
#include "server/pull_stream.h"
#include "server/server_core.h"

namespace lasp::server {

// Sends the lines of the ranks asked for, each rank's in order. Following, it goes on to the ranks
// of later generations unless one was named, and ends when the job has finished and all is sent.
class LogStream final : public PullStream<v1::StreamLogsResponse> {
 public:
  // `request` has been checked; `cursor` is that of its resume token.
  LogStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
            ServerCore* core, JobViewPtr job, const v1::StreamLogsRequest& request,
            LogCursor cursor);

  // Before Open.
  void Subscribe();

  void OnTick(absl::Duration now) override;

 private:
  std::optional<absl::Status> Pull(std::vector<v1::StreamLogsResponse>* batch) override;
  // Reads on from the cursor, at most one message full; empty at the end of all ranks.
  absl::Status Read(int64_t last_generation, v1::StreamLogsResponse* response);
  absl::Status ReadRank(int64_t generation, int rank, v1::StreamLogsResponse* response);
  // Whether no rank writes what was asked for any more; its last lines may still be on the way.
  bool IsOver(const JobView& present) const;

  const Clock* const clock_;
  ServerCore* const core_;
  const JobViewPtr job_;
  const v1::StreamLogsRequest request_;
  const absl::Time since_;
  // The first generation to read; the last is the same where one was asked for.
  const int64_t first_generation_;
  LogCursor cursor_;
  // Since when it has been over without another line. Touched by Pull only.
  absl::Duration over_since_ = absl::InfiniteDuration();
  std::unique_ptr<LogStore::Subscription> subscription_;
};

}  // namespace lasp::server
