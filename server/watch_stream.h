// One user's watch over jobs.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/job_filter.h"
#include "server/pull_stream.h"
#include "server/watch_encoder.h"
#include "server/watch_hub.h"

namespace lasp::server {

// Sends what the filter selects. A job that is changed so that the filter no longer selects it is
// not sent; deletions are sent for every job of the project, for a filter cannot be asked about a
// job that is gone.
class WatchStream final : public PullStream<grpc::ByteBuffer> {
 public:
  WatchStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
              WatchEncoder* encoder, std::string project, JobFilter filter);

  // Before Open. Errors as WatchHub::Subscribe.
  absl::Status Subscribe(WatchHub* hub, const std::string& resume_token);

 private:
  std::optional<absl::Status> Pull(std::vector<grpc::ByteBuffer>* batch) override;

  WatchEncoder* const encoder_;
  const std::string project_;
  const JobFilter filter_;
  std::unique_ptr<Watch> watch_;
};

}  // namespace lasp::server
