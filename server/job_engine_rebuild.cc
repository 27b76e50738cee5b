// A generation that goes on from what ranks of the one before left in the memory of their hosts.
#include <algorithm>
#include <utility>

#include "proto/rpc/log.h"
#include "server/job_engine.h"
#include "server/rebuild_plan.h"

namespace lasp::server {
namespace {

// A generation that finds it gone fails as one that meets another fault does; then it is not the
// rebuilding's turn any more.
constexpr int kMaxTakes = 3;

}  // namespace

void JobEngine::KeepLeftState(JobRecord* job, int rank, const lasp::v1::StateLeft& left) {
  if (!job->replicated) {
    return;
  }
  if (job->left == nullptr || job->left->generation != job->run->generation) {
    job->left = std::make_unique<LeftStates>();
    job->left->generation = job->run->generation;
  }
  job->left->states.push_back(
      {.worker_id = job->run->ranks[static_cast<size_t>(rank)].worker_id, .state = left});
}

std::shared_ptr<const lasp::v1::Rebuild> JobEngine::TakeLeftStates(
    JobRecord* job, const std::vector<WorkerRecord*>& workers, int64_t checkpoint_step) {
  std::unique_ptr<LeftStates> candidates[] = {std::move(job->left), std::move(job->taken)};
  if (!std::all_of(workers.begin(), workers.end(),
                   [](const WorkerRecord* worker) { return worker->rebuilds(); })) {
    return nullptr;
  }
  std::vector<std::string> ids;
  ids.reserve(workers.size());
  for (const WorkerRecord* worker : workers) {
    ids.push_back(worker->id());
  }
  for (std::unique_ptr<LeftStates>& left : candidates) {
    // What an older generation left belongs to a history that a checkpoint has replaced, but for
    // what the last one had begun from when it failed.
    if (left == nullptr || left->takes >= kMaxTakes ||
        (left->takes == 0 && left->generation != job->generation())) {
      continue;
    }
    std::optional<lasp::v1::Rebuild> rebuild = PlanRebuild(*left, ids, checkpoint_step);
    if (!rebuild.has_value()) {
      LASP_LOG(kInfo, "what ranks left in memory does not make a whole that is newer",
               {{"training_job", job->name()},
                {"left_by", left->generation},
                {"shares", DescribeLeft(*left)},
                {"checkpoint_step", checkpoint_step}});
      continue;
    }
    if (StatesDiffer(*left)) {
      LASP_LOG(kWarning, "ranks have left states that differ: one that is whole is taken",
               {{"training_job", job->name()},
                {"left_by", left->generation},
                {"shares", DescribeLeft(*left)}});
    }
    StoreUnreportedSteps(job, *left, rebuild->state().step());
    ++left->takes;
    job->taken = std::move(left);
    return std::make_shared<const lasp::v1::Rebuild>(*std::move(rebuild));
  }
  return nullptr;
}

void JobEngine::StoreUnreportedSteps(JobRecord* job, const LeftStates& left, int64_t last_step) {
  int64_t reported = job->view->job.progress().step();
  if (job->progress != nullptr) {
    reported = std::max(reported, job->progress->step());
  }
  PutSteps rows{.job_id = job->id(), .steps = {}};
  for (const LeftState& share : left.states) {
    if (share.state.state().step() < last_step) {
      continue;
    }
    for (const lasp::v1::StepMetrics& step : share.state.recent_steps()) {
      if (step.step() > reported && step.step() <= last_step) {
        rows.steps.push_back(step);
        rows.steps.back().set_generation(left.generation);
      }
    }
    break;
  }
  if (rows.steps.empty()) {
    return;
  }
  parts_.observer->OnStepsStored(rows.steps.size());
  StepPosition& newest = unit_.new_steps[job->id()];
  newest = std::max(newest, StepPosition{left.generation, rows.steps.back().step()});
  unit_.mutations.emplace_back(std::move(rows));
}

}  // namespace lasp::server
