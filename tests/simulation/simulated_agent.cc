#include "tests/simulation/simulated_agent.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/simulation/simulated_keeper.h"

namespace lasp::simulation {
namespace {

// As in worker/agent/coordinator_client.cc.
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(200);
constexpr absl::Duration kLastBackoff = absl::Seconds(5);
constexpr absl::Duration kWelcomeTimeout = absl::Seconds(10);
constexpr absl::Duration kPumpInterval = absl::Milliseconds(200);
constexpr absl::Duration kDrainTimeout = absl::Seconds(10);

// Ranks here write no logs; one empty place for them serves all worlds.
worker::RankLogs* NoLogs() {
  static auto* const logs =
      new worker::RankLogs({.folder = "/nonexistent/lasp-simulation"}, &SystemClock());
  return logs;
}

}  // namespace

struct SimulatedAgent::Process {
  Process(const Timeline* timeline, absl::Duration start, const std::string& worker_id, int slots)
      : clock(timeline, start), rank_metrics(worker_id, &clock), metrics(slots, &rank_metrics) {}

  VirtualClock clock;
  worker::RankMetrics rank_metrics;
  worker::AgentMetrics metrics;
  std::unique_ptr<worker::Agent> agent;
  std::shared_ptr<Stream> stream;
  absl::Duration backoff = kFirstBackoff;
  bool pump_planned = false;
  bool terminating = false;
  absl::Duration drain_deadline;
};

SimulatedAgent::SimulatedAgent(Context* context, Checker* checker, Coordinator* coordinator,
                               RankField* field, std::string worker_id, int gpu_slots,
                               int cpu_slots)
    : context_(context),
      checker_(checker),
      coordinator_(coordinator),
      field_(field),
      worker_id_(std::move(worker_id)),
      gpu_slots_(gpu_slots),
      cpu_slots_(cpu_slots),
      random_(context->MakeRandom()) {}

SimulatedAgent::~SimulatedAgent() {
  if (up() && process_->stream != nullptr) {
    process_->stream->Abandon(/*told=*/true);
  }
}

void SimulatedAgent::StartAfter(absl::Duration delay) {
  if (starting_ || up()) {
    return;
  }
  starting_ = true;
  context_->timeline().After(delay, [this] { Start(); });
}

void SimulatedAgent::Start() {
  starting_ = false;
  if (retired_ || up()) {
    return;
  }
  // Before slots are offered, what an earlier process left is ended.
  const std::vector<RankProcessPtr> left = field_->AliveOn(worker_id_);
  for (const RankProcessPtr& process : left) {
    field_->Kill(process);
  }
  if (!left.empty()) {
    StartAfter(absl::Milliseconds(100));
    return;
  }
  ++incarnation_;
  held_.clear();
  context_->Say("agent ", worker_id_, ": starts");
  const int slots = gpu_slots_ + cpu_slots_;
  process_ = std::make_unique<Process>(
      &context_->timeline(), random_.Between(absl::Seconds(1), absl::Hours(9)), worker_id_, slots);
  stalled_until_ = context_->now();
  worker::AgentOptions options;
  options.worker_id = worker_id_;
  options.drain_timeout = kDrainTimeout;
  for (int i = 0; i < slots; ++i) {
    lasp::v1::Slot& slot = options.supervisor.slots.emplace_back();
    slot.set_index(i);
    slot.set_kind(i < gpu_slots_ ? lasp::v1::Slot::KIND_GPU : lasp::v1::Slot::KIND_CPU);
    if (i < gpu_slots_) {
      slot.mutable_gpu()->set_uuid(absl::StrCat("GPU-", worker_id_, "-", i));
      slot.mutable_gpu()->set_memory_bytes(int64_t{80} << 30);
    }
  }
  process_->agent = std::make_unique<worker::Agent>(
      options,
      [this, slots](worker::RankObserver* observer) {
        return std::make_unique<SimulatedKeeper>(
            context_, field_, worker_id_, slots, observer,
            // A keeper's timers may outlive its agent's process.
            [this, incarnation = incarnation_](std::function<void()> work) {
              PlanFor(incarnation, absl::Milliseconds(1), [this, work = std::move(work)] {
                work();
                PumpSoon();
              });
            });
      },
      NoLogs(), &process_->rank_metrics, &process_->metrics, &process_->clock);
  Dial();
  PlanPump();
}

void SimulatedAgent::Plan(absl::Duration delay, std::function<void()> work) {
  PlanFor(incarnation_, delay, std::move(work));
}

void SimulatedAgent::PlanFor(int64_t incarnation, absl::Duration delay,
                             std::function<void()> work) {
  context_->timeline().After(delay, [this, incarnation, work = std::move(work)]() mutable {
    if (!up() || incarnation != incarnation_) {
      return;
    }
    if (stalled_until_ > context_->now() || !held_.empty()) {
      Hold(std::move(work));
    } else {
      work();
    }
  });
}

// What comes to a process that does not run waits, and is taken up in the order in which it came.
void SimulatedAgent::Hold(std::function<void()> work) {
  held_.push_back(std::move(work));
  if (held_.size() == 1) {
    PlanRelease();
  }
}

void SimulatedAgent::PlanRelease() {
  context_->timeline().After(stalled_until_ - context_->now(), [this, incarnation = incarnation_] {
    if (!up() || incarnation != incarnation_) {
      return;
    }
    if (stalled_until_ > context_->now()) {
      PlanRelease();
      return;
    }
    while (up() && incarnation == incarnation_ && !held_.empty()) {
      const std::function<void()> work = std::move(held_.front());
      held_.pop_front();
      work();
    }
  });
}

void SimulatedAgent::Dial() {
  process_->agent->BeginStream();
  const bool partitioned = partitioned_until_ > context_->now();
  if (!coordinator_->up() && !partitioned) {
    process_->agent->EndStream();
    DialLater(/*welcomed=*/false);
    return;
  }
  const auto stream = Stream::Open(
      context_, checker_, coordinator_, worker_id_,
      Stream::Receiver{.message =
                           [this](const lasp::v1::ConnectResponse& response) {
                             Plan(absl::ZeroDuration(), [this, from = process_->stream, response] {
                               // Of a stream that has been given up, nothing is read.
                               if (from == process_->stream) {
                                 process_->agent->Handle(response);
                                 PumpSoon();
                               }
                             });
                           },
                       .end =
                           [this] {
                             Plan(absl::ZeroDuration(), [this, from = process_->stream] {
                               if (from != nullptr && from == process_->stream) {
                                 EndStream();
                               }
                             });
                           }});
  stream->HoldUntil(partitioned_until_);
  process_->stream = stream;
  Pump();
  Plan(kWelcomeTimeout, [this, stream] {
    if (process_->stream == stream && !process_->agent->connected()) {
      EndStream();
    }
  });
}

void SimulatedAgent::EndStream() {
  const bool welcomed = process_->agent->connected();
  process_->agent->EndStream();
  process_->stream->Abandon(/*told=*/partitioned_until_ <= context_->now());
  process_->stream = nullptr;
  DialLater(welcomed);
}

void SimulatedAgent::DialLater(bool welcomed) {
  absl::Duration& backoff = process_->backoff;
  backoff = welcomed ? kFirstBackoff : std::min(2 * backoff, kLastBackoff);
  Plan(random_.Between(absl::ZeroDuration(), backoff), [this] {
    if (process_->stream == nullptr) {
      Dial();
    }
  });
}

void SimulatedAgent::PumpSoon() {
  if (!std::exchange(process_->pump_planned, true)) {
    Plan(random_.Between(absl::Microseconds(1), absl::Microseconds(500)), [this] {
      process_->pump_planned = false;
      Pump();
    });
  }
}

void SimulatedAgent::PlanPump() {
  Plan(kPumpInterval, [this] {
    Pump();
    PlanPump();
  });
}

void SimulatedAgent::Pump() {
  while (process_->stream != nullptr) {
    auto message = process_->agent->NextMessage(absl::ZeroDuration());
    if (!message.has_value()) {
      return;
    }
    process_->stream->SendToServer(*std::move(message));
  }
}

void SimulatedAgent::End(bool told) {
  if (process_->stream != nullptr) {
    process_->stream->Abandon(told);
  }
  process_ = nullptr;
}

void SimulatedAgent::Crash(bool ranks_die) {
  if (!up()) {
    return;
  }
  context_->Say("agent ", worker_id_, ": crashes, its ranks ", ranks_die ? "with it" : "later");
  End(/*told=*/partitioned_until_ <= context_->now());
  if (ranks_die) {
    field_->KillAllOn(worker_id_);
    return;
  }
  for (const RankProcessPtr& process : field_->AliveOn(worker_id_)) {
    context_->timeline().After(random_.Between(absl::ZeroDuration(), absl::Seconds(1)),
                               [this, process] {
                                 // One that hangs notices nothing.
                                 if (process->hung_until <= context_->now()) {
                                   field_->Exit(process, kRankRetry);
                                 }
                               });
  }
}

void SimulatedAgent::LoseHost() {
  context_->Say("host ", worker_id_, ": is gone");
  if (up()) {
    End(/*told=*/false);
  }
  field_->KillAllOn(worker_id_);
}

void SimulatedAgent::Stall(absl::Duration duration) {
  context_->Say("agent ", worker_id_, ": stalls for ", absl::FormatDuration(duration));
  stalled_until_ = std::max(stalled_until_, context_->now() + duration);
}

void SimulatedAgent::Terminate() {
  if (!up() || std::exchange(process_->terminating, true)) {
    return;
  }
  context_->Say("agent ", worker_id_, ": is told to end");
  process_->agent->Drain();
  process_->drain_deadline = context_->now() + kDrainTimeout + absl::Seconds(5);
  AwaitDrained();
}

void SimulatedAgent::AwaitDrained() {
  PumpSoon();
  Plan(absl::Milliseconds(200), [this] {
    const bool late = context_->now() > process_->drain_deadline;
    if ((process_->agent->WaitUntilNoRanks(absl::ZeroDuration()) && AllReported()) || late) {
      context_->Say("agent ", worker_id_, ": ends");
      End(/*told=*/true);
      field_->KillAllOn(worker_id_);
      StartAfter(random_.Between(absl::Milliseconds(100), absl::Seconds(5)));
    } else {
      AwaitDrained();
    }
  });
}

void SimulatedAgent::BreakStream() {
  if (up() && process_->stream != nullptr) {
    process_->stream->Break();
  }
}

void SimulatedAgent::Partition(absl::Duration duration) {
  constexpr absl::Duration kKeepalive = absl::Seconds(20);
  context_->Say("agent ", worker_id_, ": cut off for ", absl::FormatDuration(duration));
  partitioned_until_ = std::max(partitioned_until_, context_->now() + duration);
  if (up() && process_->stream != nullptr) {
    process_->stream->HoldUntil(partitioned_until_);
    if (duration > kKeepalive) {
      process_->stream->Break();
    }
  }
}

void SimulatedAgent::Heal() {
  if (!up()) {
    StartAfter(random_.Between(absl::ZeroDuration(), absl::Seconds(3)));
  }
}

bool SimulatedAgent::serves() const {
  return up() && !process_->terminating && process_->agent->connected();
}

bool SimulatedAgent::AllReported() const { return !up() || process_->agent->AllReported(); }

}  // namespace lasp::simulation
