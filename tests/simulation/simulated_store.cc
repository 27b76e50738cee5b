#include "tests/simulation/simulated_store.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace lasp::simulation {
namespace {

constexpr absl::Duration kRetryDelay = absl::Milliseconds(150);

absl::Status NotHere() { return absl::UnimplementedError("nobody asks for this here"); }

bool Ends(const server::Mutation& mutation) {
  const auto* const put = std::get_if<server::PutJob>(&mutation);
  if (put == nullptr) {
    return false;
  }
  const auto state = put->view->job.state();
  return state == lasp::v1::TrainingJob::STATE_SUCCEEDED ||
         state == lasp::v1::TrainingJob::STATE_FAILED ||
         state == lasp::v1::TrainingJob::STATE_CANCELLED;
}

}  // namespace

SimulatedStore::SimulatedStore(Context* context, Disk* disk, Checker* checker,
                               std::function<void()> crash, std::function<void()> committed)
    : context_(context),
      disk_(disk),
      checker_(checker),
      crash_(std::move(crash)),
      committed_(std::move(committed)),
      random_(context->MakeRandom()) {}

SimulatedStore::~SimulatedStore() { *alive_ = false; }

absl::StatusOr<server::StoreContents> SimulatedStore::Load() {
  absl::StatusOr<server::StoreContents> contents = disk_->state->Load();
  if (contents.ok()) {
    checker_->OnLoad(*contents);
  }
  return contents;
}

void SimulatedStore::Commit(std::vector<server::Mutation> mutations,
                            std::function<void()> committed) {
  if (context_->plant() == Plant::kAnswersEarly) {
    committed();
    committed = [] {};
  }
  if (context_->plant() == Plant::kPlaceTwice) {
    PlaceTwice(&mutations);
  }
  queue_.push_back({std::move(mutations), std::move(committed)});
  if (!writing_) {
    writing_ = true;
    PlanWrite(random_.Chance(0.05) ? random_.Between(absl::ZeroDuration(), absl::Milliseconds(400))
                                   : random_.Between(absl::ZeroDuration(), absl::Milliseconds(8)));
  }
}

void SimulatedStore::PlanWrite(absl::Duration delay) {
  // What comes later waits for the next group.
  context_->timeline().After(delay, [this, alive = alive_, count = queue_.size()] {
    if (*alive) {
      Write(count);
    }
  });
}

void SimulatedStore::Write(size_t count) {
  if (context_->now() < disk_->broken_until) {
    if (health_.ok()) {
      context_->Say("store: cannot write");
    }
    health_ = absl::UnavailableError("the disk is full");
    PlanWrite(kRetryDelay);
    return;
  }
  if (!health_.ok()) {
    context_->Say("store: writes again");
    health_ = absl::OkStatus();
  }
  const Disk::Kill kill = std::exchange(disk_->kill, Disk::Kill::kNone);
  if (kill == Disk::Kill::kBefore) {
    context_->Say("store: the process dies before a commit of ", count);
    // A copy, for it ends this object.
    const std::function<void()> crash = crash_;
    crash();
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    std::vector<server::Mutation> mutations = queue_[i].mutations;
    Distort(&mutations);
    const absl::Status applied = disk_->state->Apply(mutations);
    if (!applied.ok()) {
      context_->Violate(Invariant::kNothingLost, std::string(applied.message()));
    }
    checker_->OnCommit(queue_[i].mutations);
  }
  if (kill == Disk::Kill::kAfter) {
    context_->Say("store: the process dies after a commit of ", count);
    // A copy, for it ends this object.
    const std::function<void()> crash = crash_;
    crash();
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    queue_.front().committed();
    queue_.pop_front();
  }
  writing_ = !queue_.empty();
  if (writing_) {
    PlanWrite(random_.Between(absl::ZeroDuration(), absl::Milliseconds(5)));
  }
  committed_();
}

void SimulatedStore::Distort(std::vector<server::Mutation>* mutations) {
  if (context_->plant() == Plant::kLosesCommit && random_.Chance(0.05)) {
    context_->Say("PLANTED: a transaction is lost");
    mutations->clear();
  }
  if (context_->plant() == Plant::kCommitsEarly) {
    CommitEarly(mutations);
  }
  if (context_->plant() == Plant::kForgetsEnd && random_.Chance(0.5)) {
    context_->Say("PLANTED: an end is forgotten");
    std::erase_if(*mutations, Ends);
  }
}

void SimulatedStore::CommitEarly(std::vector<server::Mutation>* mutations) {
  for (server::Mutation& mutation : *mutations) {
    auto* const put = std::get_if<server::PutCheckpoint>(&mutation);
    if (put != nullptr && put->checkpoint.state() == lasp::v1::Checkpoint::STATE_WRITING) {
      context_->Say("PLANTED: ", put->checkpoint.name(), " is stored as committed");
      put->checkpoint.set_state(lasp::v1::Checkpoint::STATE_COMMITTED);
    }
  }
}

void SimulatedStore::PlaceTwice(std::vector<server::Mutation>* mutations) {
  for (server::Mutation& mutation : *mutations) {
    auto* const put = std::get_if<server::PutJob>(&mutation);
    if (put == nullptr || !random_.Chance(0.5) ||
        put->view->job.state() != lasp::v1::TrainingJob::STATE_STARTING) {
      continue;
    }
    for (const auto& [id, job] : checker_->jobs()) {
      if (id != put->view->id && job.live() && !job.places.empty()) {
        context_->Say("PLANTED: a place of ", job.name, " is given to ", put->view->job.name());
        auto view = std::make_shared<server::JobView>(*put->view);
        view->job.mutable_placements(0)->set_worker(job.places.back().first);
        view->job.mutable_placements(0)->set_slot(job.places.back().second);
        put->view = std::move(view);
        break;
      }
    }
  }
}

absl::StatusOr<std::vector<lasp::v1::Transition>> SimulatedStore::Transitions(int64_t job_id,
                                                                              int limit) const {
  return disk_->state->Transitions(job_id, limit);
}

absl::StatusOr<std::vector<server::StoredTransition>> SimulatedStore::LatestTransitions(
    int limit) const {
  return disk_->state->LatestTransitions(limit);
}

absl::StatusOr<std::vector<server::StoredTransition>> SimulatedStore::TransitionsBefore(
    int64_t /*job_id*/, int64_t /*before*/, int /*limit*/) const {
  return NotHere();
}

absl::StatusOr<int64_t> SimulatedStore::CountSteps(int64_t /*job_id*/, int64_t /*from_step*/,
                                                   int64_t /*to_step*/) const {
  return NotHere();
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SimulatedStore::ReadSteps(
    int64_t /*job_id*/, int64_t /*from_step*/, int64_t /*to_step*/, int64_t /*stride*/) const {
  return NotHere();
}

absl::StatusOr<std::vector<lasp::v1::StepMetrics>> SimulatedStore::ReadGenerationSteps(
    int64_t /*job_id*/, int64_t /*generation*/, int64_t /*after_step*/, int /*limit*/) const {
  return NotHere();
}

absl::StatusOr<int64_t> SimulatedStore::NextGeneration(int64_t /*job_id*/,
                                                       int64_t /*generation*/) const {
  return NotHere();
}

absl::StatusOr<server::AuditPage> SimulatedStore::ReadAudit(const server::AuditQuery& /*query*/,
                                                            int /*limit*/) const {
  return NotHere();
}

}  // namespace lasp::simulation
