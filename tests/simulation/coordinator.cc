#include "tests/simulation/coordinator.h"

#include <utility>

#include "server/core_parts.h"

namespace lasp::simulation {
namespace {

// Deadlines of minutes as seconds: a world is short.
server::CoreOptions ShortOptions() {
  server::CoreOptions options;
  options.presence_deadline = absl::Seconds(12);
  options.readiness_deadline = absl::Seconds(15);
  options.finish_deadline = absl::Seconds(10);
  options.drain_grace = absl::Seconds(8);
  options.max_restart_backoff = absl::Seconds(8);
  options.max_queued_jobs = 100;
  return options;
}

}  // namespace

// Counts the leases that run out.
class LeaseObserver final : public server::CoreObserver {
 public:
  explicit LeaseObserver(int64_t* expired) : expired_(expired) {}

  void OnLeaseExpired() override { ++*expired_; }

 private:
  int64_t* const expired_;
};

struct Coordinator::Process {
  Process(const server::CoreOptions& options, const Timeline* timeline, absl::Duration start,
          int64_t* expired_leases)
      : clock(timeline, start),
        observer(expired_leases),
        events(static_cast<size_t>(options.event_history)),
        // No line of a rank's log comes here: the folder is never made.
        logs("/nonexistent/lasp-simulation", 1 << 20, 1 << 18),
        log_remover([](const std::string&) {}),
        leases(&clock, options.lease_duration),
        refusals(&clock) {}

  VirtualClock clock;
  LeaseObserver observer;
  std::unique_ptr<SimulatedStore> store;
  std::unique_ptr<SimulatedCheckpointDisk> checkpoint_disk;
  server::CheckpointCatalog checkpoints;
  server::JobCatalog jobs;
  server::WorkerCatalog workers;
  std::unique_ptr<server::WatchHub> watches;
  server::EventLog events;
  std::unique_ptr<server::MetricsHub> metrics;
  server::LogStore logs;
  server::LogRemover log_remover;
  server::LeaseTable leases;
  server::RefusalLog refusals;
  std::unique_ptr<server::JobController> controller;
};

Coordinator::Coordinator(Context* context, Checker* checker, Disk* disk, CheckpointFiles* files)
    : context_(context),
      checker_(checker),
      disk_(disk),
      files_(files),
      random_(context->MakeRandom()),
      options_(ShortOptions()) {}

Coordinator::~Coordinator() = default;

void Coordinator::Start() {
  ++incarnation_;
  context_->Say("coordinator: starts");
  // A process's monotonic clock begins anywhere.
  auto process = std::make_unique<Process>(options_, &context_->timeline(),
                                           random_.Between(absl::Seconds(1), absl::Hours(100)),
                                           &expired_leases_);
  process->clock.Jump(wall_offset_);
  process->store = std::make_unique<SimulatedStore>(
      context_, disk_, checker_, [this] { Crash(); }, [this] { Wake(); });
  process->checkpoint_disk =
      std::make_unique<SimulatedCheckpointDisk>(context_, files_, checker_, [this] { Wake(); });
  process->watches = std::make_unique<server::WatchHub>(
      &process->jobs, process->store->uuid(), &process->clock, options_.bookmark_interval);
  process->metrics = std::make_unique<server::MetricsHub>(process->store.get());
  auto controller = server::JobController::StartStepped(
      options_, {.clock = &process->clock,
                 .store = process->store.get(),
                 .jobs = &process->jobs,
                 .workers = &process->workers,
                 .watches = process->watches.get(),
                 .events = &process->events,
                 .metrics = process->metrics.get(),
                 .logs = &process->logs,
                 .log_remover = &process->log_remover,
                 .leases = &process->leases,
                 .refusals = &process->refusals,
                 .checkpoints = &process->checkpoints,
                 .checkpoint_disk = process->checkpoint_disk.get(),
                 .observer = &process->observer});
  if (!controller.ok()) {
    context_->Violate(Invariant::kNothingLost, std::string(controller.status().message()));
    return;
  }
  process->controller = *std::move(controller);
  process_ = std::move(process);
  woken_ = false;
  stalled_until_ = context_->now();
  Wake();
  PlanSweep();
}

void Coordinator::Crash() {
  if (!up()) {
    return;
  }
  context_->Say("coordinator: crashes");
  std::unique_ptr<Process> process = std::move(process_);
  for (const auto& run : std::exchange(at_crash_, {})) {
    run();
  }
  on_crash_();
  // The answers that it owed say UNAVAILABLE, as a broken connection does.
  process->controller = nullptr;
}

void Coordinator::Stall(absl::Duration duration) {
  context_->Say("coordinator: stalls for ", absl::FormatDuration(duration));
  stalled_until_ = std::max(stalled_until_, context_->now() + duration);
}

void Coordinator::JumpWallClock(absl::Duration by) {
  context_->Say("coordinator: the wall clock jumps by ", absl::FormatDuration(by));
  wall_offset_ += by;
  if (up()) {
    process_->clock.Jump(by);
  }
}

server::JobController* Coordinator::controller() {
  return up() ? process_->controller.get() : nullptr;
}

server::WorkerViewPtr Coordinator::FindWorker(const std::string& worker_id) const {
  return up() ? process_->workers.Find(worker_id) : nullptr;
}

server::JobViewPtr Coordinator::FindJob(const std::string& uid) const {
  return up() ? process_->jobs.FindByUid(uid) : nullptr;
}

bool Coordinator::healthy() const { return up() && process_->store->health().ok(); }

void Coordinator::Plan(absl::Duration delay, std::function<void()> work) {
  context_->timeline().After(delay,
                             [this, incarnation = incarnation_, work = std::move(work)]() mutable {
                               if (!up() || incarnation != incarnation_) {
                                 return;
                               }
                               if (stalled_until_ > context_->now()) {
                                 Plan(stalled_until_ - context_->now(), std::move(work));
                               } else {
                                 work();
                               }
                             });
}

void Coordinator::Wake() {
  if (up() && !std::exchange(woken_, true)) {
    Plan(random_.Between(absl::Microseconds(10), absl::Milliseconds(2)), [this] {
      woken_ = false;
      Turn(/*sweep=*/false);
    });
  }
}

void Coordinator::PlanSweep() {
  Plan(options_.sweep_interval, [this] {
    Turn(/*sweep=*/true);
    PlanSweep();
  });
}

void Coordinator::Turn(bool sweep) {
  process_->controller->Step(sweep);
  // A unit without rows is published by the next turn.
  process_->controller->Step(/*sweep=*/false);
  on_turn_();
}

}  // namespace lasp::simulation
