#include "server/metrics_stream.h"

#include "server/job_lookup.h"
#include "server/job_state_machine.h"

namespace lasp::server {
namespace {

constexpr int kRowsPerMessage = 1'000;

}  // namespace

MetricsStream::MetricsStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                             ServerCore* core, JobViewPtr job, StepPosition after)
    : PullStream(streams, pool, slow_reader_limit),
      core_(core),
      job_(std::move(job)),
      after_(after) {}

void MetricsStream::Subscribe() {
  subscription_ = core_->metrics().Subscribe(job_->id, after_, [this] { Wake(); });
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
  const bool finished = IsFinished(present->job.state());
  auto rows = subscription_->Next(kRowsPerMessage, /*thorough=*/finished);
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
  if (finished) {
    return absl::OkStatus();
  }
  return std::nullopt;
}

}  // namespace lasp::server
