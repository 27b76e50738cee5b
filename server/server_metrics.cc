#include "server/server_metrics.h"

#include <array>
#include <map>
#include <string>
#include <utility>

#include "server/job_state_machine.h"
#include "server/slot_kind.h"

namespace lasp::server {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;
using v1::TrainingJob;
using v1::Worker;

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

void AddGauge(MetricFamily* family, std::vector<prometheus::ClientMetric::Label> labels,
              double value) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  metric.gauge.value = value;
}

MetricFamily NewGauge(const char* name, const char* help) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = MetricType::Gauge;
  return family;
}

// Reads the catalogues, so that the figures are right whatever the process has missed.
class CoreReader final : public prometheus::Collectable {
 public:
  explicit CoreReader(ServerCore* core) : core_(core) {}

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> families;
    families.push_back(Jobs());
    AppendWorkers(&families);
    AppendOne("lasp_watch_streams", "Watches over jobs that are open",
              static_cast<double>(core_->watches().watch_count()), &families);
    AppendOne("lasp_event_log_sequence", "Revision of the last change of a job",
              static_cast<double>(core_->jobs().revision()), &families);
    AppendOne("lasp_store_pending_transactions", "Transactions that wait for the disk",
              static_cast<double>(core_->store().pending()), &families);
    AppendOne("lasp_controller_queued_commands", "Commands of users that wait for the controller",
              static_cast<double>(core_->controller().inbox().command_count()), &families);
    AppendOne("lasp_controller_queued_agent_messages",
              "Messages of agents that wait for the controller",
              static_cast<double>(core_->controller().inbox().agent_message_count()), &families);
    AppendOne("lasp_controller_queued_agent_bytes",
              "Bytes of the messages of agents that wait for the controller",
              static_cast<double>(core_->controller().inbox().agent_bytes()), &families);
    return families;
  }

 private:
  static void AppendOne(const char* name, const char* help, double value,
                        std::vector<MetricFamily>* families) {
    families->push_back(NewGauge(name, help));
    AddGauge(&families->back(), {}, value);
  }

  MetricFamily Jobs() const {
    std::map<TrainingJob::State, int64_t> counts;
    for (const JobViewPtr& view : core_->jobs().All()) {
      ++counts[view->job.state()];
    }
    MetricFamily family = NewGauge("lasp_training_jobs", "Jobs by state");
    for (int i = TrainingJob::State_MIN + 1; i <= TrainingJob::State_MAX; ++i) {
      const auto state = static_cast<TrainingJob::State>(i);
      AddGauge(&family, {{"state", std::string(JobStateName(state))}},
               static_cast<double>(counts[state]));
    }
    return family;
  }

  void AppendWorkers(std::vector<MetricFamily>* families) const {
    std::map<Worker::State, int64_t> counts;
    PerKind<int64_t> slots;
    PerKind<int64_t> used_slots;
    MetricFamily heartbeats = NewGauge("lasp_worker_last_heartbeat_timestamp_seconds",
                                       "When the worker was last heard of, in Unix time");
    for (const WorkerViewPtr& view : core_->workers().All()) {
      const Worker& worker = view->worker;
      ++counts[worker.state()];
      if (worker.state() == Worker::STATE_READY || worker.state() == Worker::STATE_DRAINING) {
        for (const v1::Slot& slot : worker.slots()) {
          ++slots[slot.kind()];
          used_slots[slot.kind()] += slot.training_job().empty() ? 0 : 1;
        }
      }
      if (view->last_heartbeat_unix_micros != nullptr) {
        AddGauge(&heartbeats, {{"worker", worker.name().substr(std::string("workers/").size())}},
                 static_cast<double>(view->last_heartbeat_unix_micros->load()) / 1e6);
      }
    }
    MetricFamily states = NewGauge("lasp_workers", "Workers by state");
    for (int i = Worker::State_MIN + 1; i <= Worker::State_MAX; ++i) {
      const auto state = static_cast<Worker::State>(i);
      AddGauge(&states, {{"state", Worker::State_Name(state).substr(6)}},
               static_cast<double>(counts[state]));
    }
    families->push_back(std::move(states));
    families->push_back(std::move(heartbeats));
    MetricFamily slot_family =
        NewGauge("lasp_worker_slots", "Slots of the workers that are connected, by kind and use");
    for (const SlotKind kind : kSlotKinds) {
      const int64_t used = used_slots[kind];
      AddGauge(&slot_family, {{"kind", SlotKindName(kind)}, {"use", "occupied"}},
               static_cast<double>(used));
      AddGauge(&slot_family, {{"kind", SlotKindName(kind)}, {"use", "free"}},
               static_cast<double>(slots[kind] - used));
    }
    families->push_back(std::move(slot_family));
  }

  ServerCore* const core_;
};

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
  write_seconds_ = AddHistogram(registry, "lasp_store_write_seconds",
                                "One transaction of the store, sync included", CommitBuckets());
  write_rows_ = AddHistogram(registry, "lasp_store_write_rows", "Rows changed by one transaction",
                             {1, 3, 10, 30, 100, 300, 1'000, 3'000});
  scheduler_seconds_ = AddHistogram(registry, "lasp_scheduler_pass_seconds",
                                    "One pass of the scheduler", CommitBuckets());
  lease_expirations_ = AddCounter(registry, "lasp_lease_expirations_total",
                                  "Agents that were not heard of for a whole lease");
  fenced_messages_ = AddCounter(registry, "lasp_fenced_messages_total",
                                "Messages refused because they were of an older generation");
  watch_evictions_ = AddCounter(registry, "lasp_watch_evictions_total",
                                "Streams ended because their client did not read");
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

std::shared_ptr<prometheus::Collectable> ServerMetrics::ReadFrom(ServerCore* core) {
  return std::make_shared<CoreReader>(core);
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

void ServerMetrics::OnStaleMessage() { fenced_messages_->Increment(); }

void ServerMetrics::OnCommit(size_t mutations, absl::Duration took) {
  write_seconds_->Observe(absl::ToDoubleSeconds(took));
  write_rows_->Observe(static_cast<double>(mutations));
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
