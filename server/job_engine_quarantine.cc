// Hosts on which ranks fail often: few hosts cause most failures. They are not taken away, which a
// job that dies everywhere would do to all of them, but come last.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {

void JobEngine::AddFailure(const std::string& worker_id, const GenerationFailure& failure) {
  WorkerRecord* const worker = workers_.Find(worker_id);
  if (worker == nullptr || options_.quarantine_failures <= 0) {
    return;
  }
  // A host that is lost has failed once, however many jobs it had ranks of.
  if (worker->lost() && !worker->failures.empty() && worker->failures.back() >= worker->lost_time) {
    return;
  }
  const absl::Time now = parts_.clock->Now();
  worker->failures.push_back(now);
  unit_.mutations.emplace_back(PutWorkerFailure{.worker_id = worker_id, .time = now});
  std::erase_if(worker->failures,
                [this, now](absl::Time time) { return time < now - options_.quarantine_window; });
  PublishWorker(worker);
  const bool told = worker->quarantine_end != absl::InfinitePast();
  worker->quarantine_end = QuarantineEnd(*worker);
  if (worker->quarantine_end == absl::InfinitePast()) {
    return;
  }
  any_quarantined_ = true;
  if (!told) {
    LASP_LOG(kWarning, "worker in quarantine",
             {{"worker", worker_id}, {"last_failure", failure.message}});
    // Without what the rank said, which may name data: events of workers are for all to see.
    AddWorkerEvent(
        worker, worker->state(), event_reason::kQuarantined,
        absl::StrCat(worker->failures.size(), " failures within ",
                     absl::FormatDuration(options_.quarantine_window),
                     ": used only where nothing else has room; the last: ", failure.reason),
        "coordinator", lasp::v1::Event::SEVERITY_WARNING);
  }
}

absl::Time JobEngine::QuarantineEnd(const WorkerRecord& worker) const {
  const auto limit = static_cast<size_t>(std::max(0, options_.quarantine_failures));
  // It is over when the first of the latest few is too old to count.
  return limit == 0 || worker.failures.size() < limit
             ? absl::InfinitePast()
             : worker.failures[worker.failures.size() - limit] + options_.quarantine_window;
}

void JobEngine::ForgiveFailures(WorkerRecord* worker) {
  if (worker->failures.empty()) {
    return;
  }
  worker->failures.clear();
  worker->quarantine_end = absl::InfinitePast();
  unit_.mutations.emplace_back(
      DeleteWorkerFailures{.worker_id = worker->id(), .before = absl::InfiniteFuture()});
}

void JobEngine::SweepQuarantine() {
  const absl::Time oldest = parts_.clock->Now() - options_.quarantine_window;
  any_quarantined_ = false;
  for (const auto& [id, worker] : workers_.workers()) {
    if (worker->failures.empty()) {
      continue;
    }
    const size_t forgotten =
        std::erase_if(worker->failures, [oldest](absl::Time time) { return time < oldest; });
    if (forgotten > 0) {
      unit_.mutations.emplace_back(DeleteWorkerFailures{.worker_id = id, .before = oldest});
    }
    const absl::Time end = QuarantineEnd(*worker);
    any_quarantined_ = any_quarantined_ || end != absl::InfinitePast();
    if (forgotten > 0 || end != worker->quarantine_end) {
      worker->quarantine_end = end;
      PublishWorker(worker.get());
      schedule_due_ = true;
    }
  }
}

std::vector<int> JobEngine::QuarantinedWorkers() const {
  std::vector<int> numbers;
  if (!any_quarantined_) {
    return numbers;
  }
  for (const auto& [id, worker] : workers_.workers()) {
    if (worker->quarantine_end != absl::InfinitePast() && !worker->lost()) {
      numbers.push_back(worker->number());
    }
  }
  return numbers;
}

}  // namespace lasp::server
