#include "server/watch_stream.h"

#include "server/job_list.h"

namespace lasp::server {
namespace {

// Changes looked at in one pull, and so held by a slow reader.
constexpr int kBatch = 64;

}  // namespace

WatchStream::WatchStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                         WatchEncoder* encoder, std::string project, JobFilter filter)
    : PullStream(streams, pool, slow_reader_limit),
      encoder_(encoder),
      project_(std::move(project)),
      filter_(std::move(filter)) {}

absl::Status WatchStream::Subscribe(WatchHub* hub, const std::string& resume_token) {
  auto watch = hub->Subscribe(resume_token, [this] { Wake(); });
  if (watch.ok()) {
    watch_ = *std::move(watch);
  }
  return watch.status();
}

std::optional<absl::Status> WatchStream::Pull(std::vector<grpc::ByteBuffer>* batch) {
  // A selective filter passes over many changes before it finds one to send.
  while (batch->empty()) {
    WatchBatch found = watch_->Next(kBatch);
    for (const JobChange& change : found.changes) {
      const std::string& name =
          change.job != nullptr ? change.job->job.name() : change.deleted_name;
      if (!InProject(name, project_) ||
          (change.job != nullptr && !filter_.Matches(change.job->job))) {
        continue;
      }
      batch->push_back(encoder_->Change(change));
    }
    if (found.bookmark) {
      batch->push_back(WatchEncoder::Bookmark(found.snapshot_end, found.resume_token));
    }
    if (found.changes.empty()) {
      break;
    }
  }
  return std::nullopt;
}

}  // namespace lasp::server
