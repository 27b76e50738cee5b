#include "tests/simulation/world.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/log.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/checkpoint_files.h"
#include "tests/simulation/context.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/memory_state.h"
#include "tests/simulation/rank_field.h"
#include "tests/simulation/simulated_agent.h"
#include "tests/simulation/sqlite_state.h"
#include "tests/simulation/users.h"

namespace lasp::simulation {
namespace {

using Job = lasp::v1::TrainingJob;
using Standing = RankField::Standing;

// After the last fault all must be well within this: the longest of the coordinator's deadlines,
// and every job's turn.
constexpr absl::Duration kPatience = absl::Minutes(8);

class World {
 public:
  World(uint64_t seed, const WorldOptions& options)
      : context_(seed, options.plant, options.recording, options.printing),
        files_(&context_),
        checker_(&context_, &files_),
        random_(context_.MakeRandom()),
        field_(&context_, &checker_, &files_),
        coordinator_(&context_, &checker_, &disk_, &files_) {
    if (options.on_disk) {
      disk_.state = std::make_unique<SqliteState>();
    } else {
      disk_.state = std::make_unique<MemoryState>();
    }
    std::vector<std::string> worker_ids;
    const bool gpus = random_.Chance(0.25);
    const int hosts = random_.Between(1, 4);
    for (int i = 0; i < hosts; ++i) {
      const int gpu_slots = gpus ? random_.Between(0, 2) : 0;
      worker_ids.push_back(absl::StrCat("host-", i + 1));
      agents_.push_back(std::make_unique<SimulatedAgent>(&context_, &checker_, &coordinator_,
                                                         &field_, worker_ids.back(), gpu_slots,
                                                         random_.Between(1, 4)));
    }
    users_ = std::make_unique<Users>(&context_, &checker_, &coordinator_, worker_ids, gpus);
    faults_ =
        std::make_unique<Faults>(&context_, &coordinator_, &disk_, &files_, &field_, &agents_);
    standings_.resize(agents_.size(), Standing::kAwaited);
    registered_.resize(agents_.size());
    leases_seen_.resize(agents_.size());
  }

  WorldResult Run() {
    coordinator_.OnCrash([this] { NoteCrash(); });
    coordinator_.OnTurn([this] { LookAtWorkers(); });
    coordinator_.Start();
    for (const auto& agent : agents_) {
      agent->StartAfter(random_.Between(absl::ZeroDuration(), absl::Seconds(3)));
    }
    users_->Begin();
    faults_->Begin();
    context_.timeline().After(random_.Between(absl::Seconds(20), absl::Seconds(75)),
                              [this] { Calm(); });
    while (!over_ && context_.violated() == Invariant::kNone) {
      context_.timeline().RunNext();
    }
    if (context_.violated() == Invariant::kNone) {
      checker_.CheckCheckpoints();
      // All of it once more, from what is stored.
      coordinator_.Crash();
      coordinator_.Start();
    }
    WorldResult result = Result();
    over_ = true;
    coordinator_.Crash();
    return result;
  }

 private:
  void NoteCrash() {
    field_.NoteCoordinator(/*up=*/false);
    if (!over_) {
      context_.timeline().After(calm_ || random_.Chance(0.7)
                                    ? random_.Between(absl::Milliseconds(50), absl::Seconds(4))
                                    : random_.Between(absl::Seconds(1), absl::Seconds(40)),
                                [this] {
                                  if (!coordinator_.up()) {
                                    coordinator_.Start();
                                  }
                                });
    }
  }

  void LookAtWorkers() {
    // As long as the coordinator waits after its start.
    constexpr absl::Duration kGrace = absl::Seconds(30);
    if (std::exchange(seen_start_, coordinator_.incarnation()) != coordinator_.incarnation()) {
      field_.NoteCoordinator(/*up=*/true);
      await_until_ = context_.now() + kGrace;
    }
    for (size_t i = 0; i < agents_.size(); ++i) {
      const server::WorkerViewPtr view = coordinator_.FindWorker(agents_[i]->worker_id());
      Standing standing = Standing::kThere;
      if (view == nullptr || view->worker.state() == lasp::v1::Worker::STATE_LOST) {
        // One that it has seen in this run and lost is not awaited.
        const bool awaited = context_.now() < await_until_ && standings_[i] != Standing::kLost &&
                             (standings_[i] == Standing::kAwaited || view == nullptr ||
                              !view->worker.has_register_time());
        standing = awaited ? Standing::kAwaited : Standing::kLost;
      }
      if (standing == Standing::kThere && NoteRegistration(i, *view)) {
        // Lost and back between two looks: what it had then is given up.
        field_.NoteStanding(agents_[i]->worker_id(), Standing::kLost);
        field_.NoteStanding(agents_[i]->worker_id(), standing);
      }
      if (standings_[i] != standing) {
        standings_[i] = standing;
        field_.NoteStanding(agents_[i]->worker_id(), standing);
      }
    }
  }

  // Whether the worker has registered anew since the last look, with a lease run out since the
  // registration before.
  bool NoteRegistration(size_t agent, const server::WorkerView& view) {
    const auto& time = view.worker.register_time();
    const int64_t nanos = time.seconds() * 1'000'000'000 + time.nanos();
    if (std::exchange(registered_[agent], nanos) == nanos) {
      return false;
    }
    return std::exchange(leases_seen_[agent], coordinator_.expired_leases()) !=
           coordinator_.expired_leases();
  }

  // No fault from here on: what is left must come to its end.
  void Calm() {
    context_.Say("no fault from here on");
    calm_ = true;
    faults_->End();
    users_->Rest();
    deadline_ = context_.now() + kPatience;
    AwaitRest();
  }

  void AwaitRest() {
    context_.timeline().After(absl::Seconds(2), [this] {
      const std::string unrest = Unrest();
      if (unrest.empty()) {
        over_ = true;
      } else if (context_.now() > deadline_) {
        context_.Violate(Invariant::kLiveness, absl::StrCat(absl::FormatDuration(kPatience),
                                                            " after the last fault: ", unrest));
      } else {
        AwaitRest();
      }
    });
  }

  // What has not come to rest; empty where all has.
  std::string Unrest() const {
    if (!coordinator_.healthy()) {
      return "the coordinator is not up";
    }
    for (const auto& agent : agents_) {
      if (!agent->retired() && !agent->serves()) {
        return absl::StrCat(agent->worker_id(), " is not connected");
      }
    }
    for (const auto& [id, job] : checker_.jobs()) {
      if (std::string why = Unrest(job); !why.empty()) {
        return why;
      }
    }
    if (const auto left = field_.Alive(); !left.empty()) {
      return absl::StrCat("left behind: ", left.front()->Name());
    }
    for (const auto& agent : agents_) {
      if (!agent->AllReported()) {
        return absl::StrCat(agent->worker_id(), " holds reports that are not acknowledged");
      }
    }
    return users_->unanswered() > 0 ? "a request has no answer" : "";
  }

  std::string Unrest(const JobShadow& shadow) const {
    const server::JobViewPtr view = coordinator_.FindJob(shadow.uid);
    if (view == nullptr) {
      return absl::StrCat(shadow.name, " is stored and readers do not find it");
    }
    const Job& job = view->job;
    if (job.state() != shadow.state) {
      return absl::StrCat(shadow.name, " is stored as ", Job::State_Name(shadow.state),
                          " and shown as ", Job::State_Name(job.state()));
    }
    std::string text = absl::StrCat(job.name(), " is ", Job::State_Name(job.state()), ", ",
                                    job.reason(), ": ", job.message());
    switch (job.state()) {
      case Job::STATE_SUCCEEDED:
      case Job::STATE_FAILED:
      case Job::STATE_CANCELLED:
      case Job::STATE_SUSPENDED:
        return "";
      case Job::STATE_QUEUED:
      case Job::STATE_RECOVERING:
        return Fits(*view) ? text : "";
      default:
        return text;
    }
  }

  // Whether the slots that there are would do for a job.
  bool Fits(const server::JobView& view) const {
    int cpus = 0;
    int gpus = 0;
    for (const auto& agent : agents_) {
      const server::WorkerViewPtr worker = coordinator_.FindWorker(agent->worker_id());
      if (worker != nullptr && worker->worker.state() == lasp::v1::Worker::STATE_READY) {
        cpus += agent->cpu_slots();
        gpus += agent->gpu_slots();
      }
    }
    lasp::v1::TrainingSpec spec;
    spec.ParseFromString(*view.spec);
    const int ranks = std::max(1, spec.parallelism().sequence_parallel().size()) *
                      std::max(1, spec.parallelism().data_parallel().size());
    const auto device = view.job.device() != lasp::v1::TrainingSpec::DEVICE_UNSPECIFIED
                            ? view.job.device()
                            : spec.device();
    return (device != lasp::v1::TrainingSpec::DEVICE_GPU && ranks <= cpus) ||
           (device != lasp::v1::TrainingSpec::DEVICE_CPU && ranks <= gpus);
  }

  WorldResult Result() const {
    WorldResult result;
    result.violated = context_.violated();
    result.violation = context_.violation();
    result.events.assign(context_.latest().begin(), context_.latest().end());
    result.digest = context_.digest();
    result.virtual_seconds = absl::ToDoubleSeconds(context_.now());
    result.jobs = users_->submitted();
    for (const auto& [id, job] : checker_.jobs()) {
      result.jobs_succeeded += job.state == Job::STATE_SUCCEEDED ? 1 : 0;
      result.generations += static_cast<int64_t>(job.generations.size());
      result.restored_generations += static_cast<int64_t>(job.starts.size());
    }
    result.coordinator_starts = coordinator_.incarnation();
    return result;
  }

  Context context_;
  CheckpointFiles files_;
  Checker checker_;
  Random random_;
  Disk disk_;
  RankField field_;
  // Told by the coordinator's end that their requests are lost.
  std::unique_ptr<Users> users_;
  Coordinator coordinator_;
  Faults::Agents agents_;
  std::unique_ptr<Faults> faults_;
  // By agent: how it is seen, when it registered last, and how many leases had run out by then.
  std::vector<Standing> standings_;
  std::vector<int64_t> registered_;
  std::vector<int64_t> leases_seen_;
  // The coordinator's last start that was noticed, and until when it waits for workers of before.
  int64_t seen_start_ = 0;
  absl::Duration await_until_;
  bool calm_ = false;
  bool over_ = false;
  absl::Duration deadline_;
};

}  // namespace

WorldResult RunWorld(uint64_t seed, const WorldOptions& options) {
  // Thousands of worlds would say the same.
  static const bool quiet = [] {
    InitializeLog({.level = LogLevel::kError, .component = "simulation", .fields = {}});
    return true;
  }();
  static_cast<void>(quiet);
  return World(seed, options).Run();
}

}  // namespace lasp::simulation
