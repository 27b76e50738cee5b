// One user's watch over jobs.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/grant.h"
#include "server/job_filter.h"
#include "server/pull_stream.h"
#include "server/selected_jobs.h"
#include "server/watch_encoder.h"
#include "server/watch_hub.h"

namespace lasp::server {

// What a watch selects.
struct WatchScope {
  // As InProject takes it.
  std::string project;
  // Only jobs that it shows.
  GrantPtr grant;
  JobFilter filter;
  // Whether several events may come in one message.
  bool batched = false;
};

// Sends what the filter selects, and the name of a job that it no longer selects. Deletions are
// sent for every job of the project, for a filter cannot be asked about a job that is gone.
class WatchStream final : public PullStream<grpc::ByteBuffer> {
 public:
  WatchStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
              WatchEncoder* encoder, WatchScope scope);

  // Before Open. Errors as WatchHub::Subscribe.
  absl::Status Subscribe(WatchHub* hub, const std::string& resume_token);

 private:
  std::optional<absl::Status> Pull(std::vector<grpc::ByteBuffer>* batch) override;
  // The event that the reader gets of a change; nothing where it is none of its business.
  std::optional<grpc::Slice> EventOf(const JobChange& change);

  WatchEncoder* const encoder_;
  const WatchScope scope_;
  std::unique_ptr<Watch> watch_;
  const WatchHub* hub_ = nullptr;
  SelectedJobs selected_;
};

}  // namespace lasp::server
