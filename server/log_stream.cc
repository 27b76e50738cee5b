#include "server/log_stream.h"

#include <algorithm>

#include "proto/rpc/proto_time.h"
#include "proto/rpc/status_macros.h"
#include "server/job_lookup.h"
#include "server/job_state_machine.h"
#include "server/valid_utf8.h"

namespace lasp::server {
namespace {

// Of one message.
constexpr int64_t kMaxBytes = 256 << 10;
// Agents tell of exits before they send the last lines, so a follower stays this long.
constexpr absl::Duration kLastLines = absl::Seconds(2);

int64_t FirstGeneration(const v1::StreamLogsRequest& request, const LogCursor& cursor,
                        const JobView& job) {
  if (request.has_generation()) {
    return request.generation();
  }
  const int64_t present = std::max<int64_t>(job.job.generation(), 1);
  return cursor.offsets.empty() ? present : cursor.offsets.begin()->first.first;
}

}  // namespace

LogStream::LogStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                     ServerCore* core, JobViewPtr job, const v1::StreamLogsRequest& request,
                     LogCursor cursor)
    : PullStream(streams, pool, slow_reader_limit),
      clock_(&streams->clock()),
      core_(core),
      job_(std::move(job)),
      request_(request),
      since_(request.has_since() ? FromProtoTime(request.since()) : absl::InfinitePast()),
      first_generation_(FirstGeneration(request, cursor, *job_)),
      cursor_(std::move(cursor)) {}

void LogStream::Subscribe() {
  if (request_.follow()) {
    subscription_ = core_->logs().Subscribe(job_->job.uid(), [this] { Wake(); });
  }
}

// A job may finish without another line.
void LogStream::OnTick(absl::Duration now) {
  PullStream::OnTick(now);
  const JobViewPtr present = core_->jobs().FindByUid(job_->job.uid());
  if (present == nullptr || IsOver(*present)) {
    Wake();
  }
}

bool LogStream::IsOver(const JobView& present) const {
  return IsFinished(present.job.state()) ||
         (request_.has_generation() && request_.generation() < present.job.generation());
}

std::optional<absl::Status> LogStream::Pull(std::vector<v1::StreamLogsResponse>* batch) {
  // Looked at before the lines: whatever came in before the job finished is read below.
  const JobViewPtr present = core_->jobs().FindByUid(job_->job.uid());
  if (present == nullptr) {
    return JobNotFound(job_->job.name());
  }
  const int64_t last_generation =
      request_.has_generation() ? request_.generation() : present->job.generation();
  v1::StreamLogsResponse response;
  absl::Status status = Read(last_generation, &response);
  if (!status.ok()) {
    return status;
  }
  if (response.lines_size() > 0) {
    over_since_ = absl::InfiniteDuration();
    response.set_resume_token(cursor_.ToToken(job_->job.uid()));
    batch->push_back(std::move(response));
    return std::nullopt;
  }
  if (request_.follow() && !IsOver(*present)) {
    return std::nullopt;
  }
  const absl::Duration now = clock_->Monotonic();
  over_since_ = std::min(over_since_, now);
  const bool all_sent = !request_.follow() || now - over_since_ >= kLastLines;
  return all_sent ? std::optional<absl::Status>(absl::OkStatus()) : std::nullopt;
}

absl::Status LogStream::Read(int64_t last_generation, v1::StreamLogsResponse* response) {
  for (int64_t generation = first_generation_; generation <= last_generation; ++generation) {
    for (const int rank : core_->logs().Ranks(job_->job.uid(), generation)) {
      if (!request_.has_rank() || request_.rank() == rank) {
        LASP_RETURN_IF_ERROR(ReadRank(generation, rank, response));
      }
    }
    // Lines of an older generation go out before those of a newer one.
    if (response->lines_size() > 0) {
      break;
    }
  }
  return absl::OkStatus();
}

absl::Status LogStream::ReadRank(int64_t generation, int rank, v1::StreamLogsResponse* response) {
  const int64_t room = kMaxBytes - static_cast<int64_t>(response->ByteSizeLong());
  if (room <= 0) {
    return absl::OkStatus();
  }
  const LogKey key{job_->job.uid(), generation, rank};
  const auto known = cursor_.offsets.find({generation, rank});
  int64_t offset = 0;
  if (known != cursor_.offsets.end()) {
    offset = known->second;
  } else if (request_.tail_lines() > 0) {
    LASP_ASSIGN_OR_RETURN(offset, core_->logs().TailOffset(key, request_.tail_lines()));
  }
  bool at_end = false;
  // Pages whose lines are all older than `since` are passed over.
  for (bool found = false; !found && !at_end;) {
    LASP_ASSIGN_OR_RETURN(LogPage page, core_->logs().Read(key, offset, room, since_));
    found = !page.lines.empty();
    at_end = page.at_end;
    offset = page.next_offset;
    for (StoredLine& stored : page.lines) {
      v1::LogLine* line = response->add_lines();
      line->set_rank(rank);
      line->set_generation(generation);
      line->set_offset(stored.offset);
      *line->mutable_time() = ToProtoTime(stored.time);
      line->set_text(ValidUtf8(stored.text));
    }
  }
  cursor_.offsets[{generation, rank}] = offset;
  return absl::OkStatus();
}

}  // namespace lasp::server
