#include "server/server_metrics.h"

#include <string>
#include <utility>

#include "server/job_state_machine.h"

namespace lasp::server {
namespace {

prometheus::Counter* AddCounter(prometheus::Registry* registry, const char* name,
                                const char* help) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry).Add({});
}

prometheus::Histogram* AddHistogram(prometheus::Registry* registry, const char* name,
                                    const char* help, const std::vector<double>& buckets) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add({}, buckets);
}

const std::vector<double>& WaitBuckets() {
  static const auto* const buckets =
      new std::vector<double>{.1, .5, 1, 2, 5, 10, 30, 60, 300, 900, 3'600};
  return *buckets;
}

const std::vector<double>& CommitBuckets() {
  static const auto* const buckets =
      new std::vector<double>{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5};
  return *buckets;
}

}  // namespace

ServerMetrics::ServerMetrics() : registry_(std::make_shared<prometheus::Registry>()) {
  prometheus::Registry* const registry = registry_.get();
  finished_ = &prometheus::BuildCounter()
                   .Name("lasp_training_jobs_finished_total")
                   .Help("Jobs that ended, by how")
                   .Register(*registry);
  for (const char* outcome : {"SUCCEEDED", "FAILED", "CANCELLED"}) {
    finished_->Add({{"outcome", outcome}});
  }
  restarts_ = &prometheus::BuildCounter()
                   .Name("lasp_training_job_restarts_total")
                   .Help("Generations that failed, by the cause")
                   .Register(*registry);
  for (const char* cause : {reason::kRankFailed, reason::kRankKilled, reason::kRankLost,
                            reason::kAgentLost, reason::kAgentRestarted, reason::kStartTimeout}) {
    restarts_->Add({{"reason", cause}});
  }
  queue_seconds_ =
      AddHistogram(registry, "lasp_training_job_queue_seconds",
                   "How long a job waited before a generation of it started", WaitBuckets());
  startup_seconds_ =
      AddHistogram(registry, "lasp_training_job_startup_seconds",
                   "From the start of a generation until all its ranks train", WaitBuckets());
  checkpoint_seconds_ =
      AddHistogram(registry, "lasp_checkpoint_seconds",
                   "From the first shard of a checkpoint until it is committed", WaitBuckets());
  write_seconds_ = AddHistogram(registry, "lasp_store_write_seconds",
                                "One transaction of the store, sync included", CommitBuckets());
  write_rows_ = AddHistogram(registry, "lasp_store_write_rows", "Rows changed by one transaction",
                             {1, 3, 10, 30, 100, 300, 1'000, 3'000});
  read_seconds_ =
      AddHistogram(registry, "lasp_store_read_seconds",
                   "One read of the store, the wait for its connection included", CommitBuckets());
  scheduler_seconds_ = AddHistogram(registry, "lasp_scheduler_pass_seconds",
                                    "One pass of the scheduler", CommitBuckets());
  lease_expirations_ = AddCounter(registry, "lasp_lease_expirations_total",
                                  "Agents that were not heard of for a whole lease");
  fenced_messages_ = AddCounter(registry, "lasp_fenced_messages_total",
                                "Messages refused because they were of an older generation");
  watch_evictions_ = AddCounter(registry, "lasp_watch_evictions_total",
                                "Streams ended because their client did not read");
  refusals_ = &prometheus::BuildCounter()
                   .Name("lasp_limit_refusals_total")
                   .Help("Calls, streams, connections and jobs refused, by the flag of their limit")
                   .Register(*registry);
  for (const char* flag :
       {"flood_ban", "max_calls_a_second", "max_connection_calls_a_second", "max_connections",
        "max_connections_a_host", "max_connections_a_principal", "max_host_bytes_a_second",
        "max_message_bytes", "max_queued_jobs", "max_streams_a_principal"}) {
    refusals_->Add({{"limit", flag}});
  }
  auto& reloads = prometheus::BuildCounter()
                      .Name("lasp_credential_reloads_total")
                      .Help("Changed certificates and tokens, by whether they could be used")
                      .Register(*registry);
  reloads_used_ = &reloads.Add({{"outcome", "used"}});
  reloads_refused_ = &reloads.Add({{"outcome", "refused"}});
  auto& checkpoints =
      prometheus::BuildCounter()
          .Name("lasp_checkpoints_total")
          .Help("Checkpoints by what came of them; a corrupt one was committed first")
          .Register(*registry);
  checkpoints_committed_ = &checkpoints.Add({{"outcome", "committed"}});
  checkpoints_failed_ = &checkpoints.Add({{"outcome", "failed"}});
  checkpoints_corrupt_ = &checkpoints.Add({{"outcome", "corrupt"}});
  steps_ = AddCounter(registry, "lasp_step_reports_total", "Training steps stored");
  log_bytes_ = AddCounter(registry, "lasp_log_received_bytes_total", "Bytes of rank logs taken in");
  log_chunks_dropped_ = AddCounter(registry, "lasp_log_chunks_dropped_total",
                                   "Pieces of rank logs that the disk did not take");
  store_writable_ = &prometheus::BuildGauge()
                         .Name("lasp_store_writable")
                         .Help("1 while the store can be written, 0 while the disk refuses")
                         .Register(*registry)
                         .Add({});
  store_writable_->Set(1);
}

void ServerMetrics::OnTransition(State from, State to, absl::string_view /*reason*/) {
  // From nothing: it finished in an earlier run of the coordinator.
  if (from != v1::TrainingJob::STATE_UNSPECIFIED && to != from && IsFinished(to)) {
    finished_->Add({{"outcome", std::string(JobStateName(to))}}).Increment();
  }
}

void ServerMetrics::OnGenerationStarted(absl::Duration queued) {
  queue_seconds_->Observe(absl::ToDoubleSeconds(queued));
}

void ServerMetrics::OnGenerationRunning(absl::Duration startup) {
  startup_seconds_->Observe(absl::ToDoubleSeconds(startup));
}

void ServerMetrics::OnLeaseExpired() { lease_expirations_->Increment(); }

void ServerMetrics::OnGenerationFailed(absl::string_view cause) {
  restarts_->Add({{"reason", std::string(cause)}}).Increment();
}

void ServerMetrics::OnCheckpoint(v1::Checkpoint::State state, absl::Duration took) {
  if (state == v1::Checkpoint::STATE_COMMITTED) {
    checkpoint_seconds_->Observe(absl::ToDoubleSeconds(took));
    checkpoints_committed_->Increment();
  } else if (state == v1::Checkpoint::STATE_CORRUPT) {
    checkpoints_corrupt_->Increment();
  } else {
    checkpoints_failed_->Increment();
  }
}

void ServerMetrics::OnQueueFull() { OnLimitReached("max_queued_jobs"); }

void ServerMetrics::OnStaleMessage() { fenced_messages_->Increment(); }

void ServerMetrics::OnCommit(size_t mutations, absl::Duration took) {
  write_seconds_->Observe(absl::ToDoubleSeconds(took));
  write_rows_->Observe(static_cast<double>(mutations));
}

void ServerMetrics::OnRead(absl::Duration took) {
  read_seconds_->Observe(absl::ToDoubleSeconds(took));
}

void ServerMetrics::OnStoreHealth(bool healthy) {
  store_writable_->Set(healthy ? 1 : 0);
  if (on_store_health_) {
    on_store_health_(healthy);
  }
}

void ServerMetrics::OnSchedulerPass(absl::Duration took, int /*placed*/) {
  scheduler_seconds_->Observe(absl::ToDoubleSeconds(took));
}

void ServerMetrics::OnStepsStored(size_t count) { steps_->Increment(static_cast<double>(count)); }

void ServerMetrics::OnLogChunkDropped() { log_chunks_dropped_->Increment(); }

void ServerMetrics::OnLogBytes(size_t count) { log_bytes_->Increment(static_cast<double>(count)); }

}  // namespace lasp::server
