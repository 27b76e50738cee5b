// One user's live view of a job's steps.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "lasp/v1/metrics_service.pb.h"
#include "server/pull_stream.h"
#include "server/server_core.h"

namespace lasp::server {

// Sends all rows after a step and then each new one, until the job has finished and all is sent.
class MetricsStream final : public PullStream<v1::StreamMetricsResponse> {
 public:
  MetricsStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                ServerCore* core, JobViewPtr job, StepPosition after);

  // Before Open.
  void Subscribe();

  void OnTick(absl::Duration now) override;

 private:
  std::optional<absl::Status> Pull(std::vector<v1::StreamMetricsResponse>* batch) override;

  ServerCore* const core_;
  const JobViewPtr job_;
  const StepPosition after_;
  std::unique_ptr<MetricsHub::Subscription> subscription_;
};

}  // namespace lasp::server
