#include "server/log_intake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "proto/rpc/log_chunk_limit.h"

namespace lasp::server {
namespace {

// Null where no log of this rank is to be kept: the job has been deleted, most likely, and its logs
// with it.
JobViewPtr LoggedJob(const CoreParts& parts, const lasp::v1::Fence& fence) {
  JobViewPtr job = parts.jobs->FindByUid(fence.uid());
  const int ranks = job == nullptr ? 0 : job->job.placements_size();
  if (job == nullptr || fence.generation() < 1 || fence.rank() < 0 ||
      (ranks > 0 && fence.rank() >= ranks) || fence.generation() > job->job.generation()) {
    return nullptr;
  }
  return job;
}

// Whether the rank runs, or ran last, on another worker. Where those of older generations ran is
// not known any more.
bool IsOfAnother(const JobView& job, const AgentSession& session, const lasp::v1::Fence& fence) {
  if (fence.generation() != job.job.generation()) {
    return false;
  }
  const std::string worker = absl::StrCat("workers/", session.worker_id());
  const auto& places = job.job.placements();
  return std::any_of(places.begin(), places.end(), [&](const lasp::v1::RankPlacement& place) {
    return place.rank() == fence.rank() && place.worker() != worker;
  });
}

LogKey KeyOf(const lasp::v1::Fence& fence) {
  return {.uid = fence.uid(), .generation = fence.generation(), .rank = fence.rank()};
}

}  // namespace

std::vector<int64_t> LogEnds(const CoreParts& parts, const lasp::v1::Hello& hello) {
  std::vector<int64_t> ends;
  for (const lasp::v1::RankStatus& rank : hello.ranks()) {
    const bool kept = LoggedJob(parts, rank.fence()) != nullptr;
    ends.push_back(kept ? parts.logs->End(KeyOf(rank.fence())).value_or(0) : 0);
  }
  return ends;
}

absl::Status TakeLogChunk(const CoreParts& parts, AgentSession* session,
                          const lasp::v1::LogChunk& chunk) {
  const lasp::v1::Fence& fence = chunk.fence();
  const JobViewPtr job = LoggedJob(parts, fence);
  if (job == nullptr || IsOfAnother(*job, *session, fence)) {
    return absl::OkStatus();
  }
  if (chunk.data().size() > kMaxLogChunkBytes || chunk.offset() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("log_chunk: has ", chunk.data().size(), " bytes from offset ", chunk.offset(),
                     ": at most ", kMaxLogChunkBytes, ", from an offset of at least 0"));
  }
  const absl::StatusOr<int64_t> appended =
      parts.logs->Append(KeyOf(fence), chunk.offset(), chunk.data());
  if (!appended.ok()) {
    // A full disk must not cost the agent its stream. The next chunk finds the gap, and the agent
    // sends again from there.
    parts.observer->OnLogChunkDropped();
    LASP_LOG(kWarning, "a piece of a log could not be stored",
             {{"training_job", fence.training_job()},
              {"rank", fence.rank()},
              {"error", appended.status().message()}});
    return absl::OkStatus();
  }
  const int64_t end = *appended;
  parts.observer->OnLogBytes(chunk.data().size());
  if (end < chunk.offset()) {
    lasp::v1::ConnectResponse response;
    *response.mutable_log_position()->mutable_fence() = fence;
    response.mutable_log_position()->set_offset(end);
    session->Send(std::move(response));
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
