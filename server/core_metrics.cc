#include "server/core_metrics.h"

#include <algorithm>
#include <map>

#include "absl/strings/strip.h"
#include "google/protobuf/util/time_util.h"
#include "server/job_state_machine.h"
#include "server/slot_kind.h"

namespace lasp::server {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;
using v1::TrainingJob;
using v1::Worker;

// Jobs that are shown each by itself: those that fail most, then the oldest.
constexpr size_t kMaxJobSeries = 256;

using Labels = std::vector<prometheus::ClientMetric::Label>;

MetricFamily* Begin(const char* name, const char* help, std::vector<MetricFamily>* families,
                    MetricType type = MetricType::Gauge) {
  MetricFamily& family = families->emplace_back();
  family.name = name;
  family.help = help;
  family.type = type;
  return &family;
}

void Add(Labels labels, double value, MetricFamily* family) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  if (family->type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

template <typename Number>
void AppendOne(const char* name, const char* help, Number value,
               std::vector<MetricFamily>* families) {
  Add({}, static_cast<double>(value), Begin(name, help, families));
}

// Whether ranks of it run, or will soon.
bool IsActive(TrainingJob::State state) {
  return state == TrainingJob::STATE_STARTING || state == TrainingJob::STATE_RUNNING ||
         state == TrainingJob::STATE_RECOVERING;
}

double QueuedSince(const TrainingJob& job) {
  const auto& time = job.has_start_time() ? job.update_time() : job.create_time();
  return static_cast<double>(google::protobuf::util::TimeUtil::TimestampToMilliseconds(time)) / 1e3;
}

}  // namespace

std::vector<MetricFamily> CoreMetrics::Collect() const {
  std::vector<MetricFamily> families;
  AppendJobs(&families);
  AppendWorkers(&families);
  AppendStreams(&families);
  AppendBackups(&families);
  AppendQueues(&families);
  return families;
}

void CoreMetrics::AppendJobs(std::vector<MetricFamily>* families) const {
  std::map<TrainingJob::State, int64_t> counts;
  double oldest = 0;
  std::vector<JobViewPtr> active;
  for (const JobViewPtr& view : core_->jobs().All()) {
    ++counts[view->job.state()];
    if (view->job.state() == TrainingJob::STATE_QUEUED) {
      const double since = QueuedSince(view->job);
      oldest = oldest == 0 ? since : std::min(oldest, since);
    } else if (IsActive(view->job.state())) {
      active.push_back(view);
    }
  }
  MetricFamily* family = Begin("lasp_training_jobs", "Jobs by state", families);
  for (int i = TrainingJob::State_MIN + 1; i <= TrainingJob::State_MAX; ++i) {
    const auto state = static_cast<TrainingJob::State>(i);
    Add({{"state", std::string(JobStateName(state))}}, static_cast<double>(counts[state]), family);
  }
  AppendOne("lasp_training_jobs_oldest_queued_timestamp_seconds",
            "Since when the job that waits longest has waited, Unix time; 0 while none waits",
            oldest, families);
  const size_t shown = std::min(active.size(), kMaxJobSeries);
  std::partial_sort(active.begin(), active.begin() + static_cast<std::ptrdiff_t>(shown),
                    active.end(), [](const JobViewPtr& left, const JobViewPtr& right) {
                      return std::make_pair(-left->job.restart_count(), left->id) <
                             std::make_pair(-right->job.restart_count(), right->id);
                    });
  active.resize(shown);
  family = Begin("lasp_training_job_failed_generations_total",
                 "Failures so far of a job that starts, runs or recovers; of at most 256 jobs",
                 families, MetricType::Counter);
  for (const JobViewPtr& view : active) {
    Add({{"training_job", view->job.name()}}, static_cast<double>(view->job.restart_count()),
        family);
  }
}

void CoreMetrics::AppendWorkers(std::vector<MetricFamily>* families) const {
  std::map<Worker::State, int64_t> counts;
  PerKind<int64_t> slots;
  PerKind<int64_t> used_slots;
  MetricFamily* family =
      Begin("lasp_worker_last_heartbeat_timestamp_seconds",
            "When the worker was last heard of, Unix time, and by this process not before its "
            "start; not of workers that left drained",
            families);
  for (const WorkerViewPtr& view : core_->workers().All()) {
    const Worker& worker = view->worker;
    ++counts[worker.state()];
    if (worker.state() == Worker::STATE_READY || worker.state() == Worker::STATE_DRAINING) {
      for (const v1::Slot& slot : worker.slots()) {
        ++slots[slot.kind()];
        used_slots[slot.kind()] += slot.training_job().empty() ? 0 : 1;
      }
    }
    const absl::Time heard = view->lease == nullptr
                                 ? view->missed_since
                                 : absl::FromUnixMicros(view->lease->renewed_unix_micros());
    if (!view->left && heard != absl::InfiniteFuture()) {
      Add({{"worker", std::string(absl::StripPrefix(worker.name(), "workers/"))}},
          absl::ToDoubleSeconds(heard - absl::UnixEpoch()), family);
    }
  }
  family = Begin("lasp_workers", "Workers by state", families);
  for (int i = Worker::State_MIN + 1; i <= Worker::State_MAX; ++i) {
    const auto state = static_cast<Worker::State>(i);
    Add({{"state", Worker::State_Name(state).substr(6)}}, static_cast<double>(counts[state]),
        family);
  }
  family = Begin("lasp_worker_slots", "Slots of the workers that are connected, by kind and use",
                 families);
  for (const SlotKind kind : kSlotKinds) {
    const int64_t used = used_slots[kind];
    Add({{"kind", SlotKindName(kind)}, {"use", "occupied"}}, static_cast<double>(used), family);
    Add({{"kind", SlotKindName(kind)}, {"use", "free"}}, static_cast<double>(slots[kind] - used),
        family);
  }
}

void CoreMetrics::AppendStreams(std::vector<MetricFamily>* families) const {
  AppendOne("lasp_watch_streams", "Watches over jobs that are open", core_->watches().watch_count(),
            families);
  AppendOne("lasp_metrics_streams", "Streams of step metrics that are open",
            core_->metrics().subscription_count(), families);
  AppendOne("lasp_log_streams", "Streams of rank logs that are open",
            core_->logs().subscription_count(), families);
  AppendOne("lasp_event_log_sequence", "Revision of the last change of a job",
            core_->jobs().revision(), families);
}

void CoreMetrics::AppendBackups(std::vector<MetricFamily>* families) const {
  AppendOne("lasp_store_last_backup_timestamp_seconds",
            "When the newest backup that was asked for was made, Unix time; 0 where there is none",
            absl::ToDoubleSeconds(core_->backups().newest() - absl::UnixEpoch()), families);
  AppendOne("lasp_store_backups_wanted", "Whether --backup_dir is set",
            core_->backups().is_wanted() ? 1 : 0, families);
}

void CoreMetrics::AppendQueues(std::vector<MetricFamily>* families) const {
  const ControllerInbox& inbox = core_->controller().inbox();
  AppendOne("lasp_store_pending_transactions", "Transactions that wait for the disk",
            core_->store().pending(), families);
  AppendOne("lasp_controller_queued_commands", "Commands of users that wait for the controller",
            inbox.command_count(), families);
  AppendOne("lasp_controller_queued_agent_messages",
            "Messages of agents that wait for the controller", inbox.agent_message_count(),
            families);
  AppendOne("lasp_controller_queued_agent_bytes",
            "Bytes of the messages of agents that wait for the controller", inbox.agent_bytes(),
            families);
  MetricFamily* const pools =
      Begin("lasp_task_pool_queued_tasks",
            "Reads, answers, wake-ups, backups and exports that wait for a thread", families);
  for (const auto& [name, pool] : pools_) {
    Add({{"pool", name}}, static_cast<double>(pool->queued()), pools);
  }
}

}  // namespace lasp::server
