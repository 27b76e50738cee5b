#include "server/metrics_stream.h"

#include <algorithm>

#include "server/job_lookup.h"
#include "server/job_state_machine.h"

namespace lasp::server {
namespace {

constexpr int kRowsPerMessage = 1'000;

}  // namespace

MetricsStream::MetricsStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                             ServerCore* core, JobViewPtr job, int64_t from_step)
    : PullStream(streams, pool, slow_reader_limit), core_(core), job_(std::move(job)) {
  cursor_.after_step = std::max<int64_t>(from_step, 1) - 1;
}

void MetricsStream::Subscribe() {
  subscription_ = core_->metrics().Subscribe(job_->id, [this] { Wake(); });
}

// A job may finish without another row.
void MetricsStream::OnTick(absl::Duration now) {
  PullStream::OnTick(now);
  const JobViewPtr present = core_->jobs().FindByUid(job_->job.uid());
  if (present == nullptr || IsFinished(present->job.state())) {
    Wake();
  }
}

std::optional<absl::Status> MetricsStream::Pull(std::vector<v1::StreamMetricsResponse>* batch) {
  // Looked at before the rows: whatever a finished job reported is stored by then.
  const JobViewPtr present = core_->jobs().FindByUid(job_->job.uid());
  if (present == nullptr) {
    return JobNotFound(job_->job.name());
  }
  auto rows = core_->metrics().Next(job_->id, &cursor_, kRowsPerMessage);
  if (!rows.ok()) {
    return rows.status();
  }
  if (!rows->empty()) {
    v1::StreamMetricsResponse& response = batch->emplace_back();
    for (v1::StepMetrics& row : *rows) {
      *response.add_steps() = std::move(row);
    }
    return std::nullopt;
  }
  if (IsFinished(present->job.state())) {
    return absl::OkStatus();
  }
  return std::nullopt;
}

}  // namespace lasp::server
