#include "tests/simulation/memory_state.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "server/job_state_machine.h"

namespace lasp::simulation {

using server::StoreContents;
using server::StoredJob;
using server::StoredTransition;

namespace {

// The first step and the newest one, where the generation has made them.
void AddEnds(const std::map<int64_t, lasp::v1::StepMetrics>& steps, int64_t generation,
             std::vector<lasp::v1::StepMetrics>* ends) {
  const auto is_of = [generation](const auto& row) {
    return row.second.generation() == generation;
  };
  const auto newest = std::find_if(steps.rbegin(), steps.rend(), is_of);
  if (newest == steps.rend()) {
    return;
  }
  if (const auto first = steps.find(1);
      first != steps.end() && is_of(*first) && newest->first != 1) {
    ends->push_back(first->second);
  }
  ends->push_back(newest->second);
}

}  // namespace

absl::Status MemoryState::Apply(const std::vector<server::Mutation>& mutations) {
  for (const server::Mutation& mutation : mutations) {
    std::visit([this](const auto& m) { Write(m); }, mutation);
  }
  return absl::OkStatus();
}

MemoryState::Job* MemoryState::Find(int64_t job_id) {
  const auto found = jobs_.find(job_id);
  return found == jobs_.end() ? nullptr : &found->second;
}

void MemoryState::Write(const server::PutJob& mutation) {
  if (mutation.created) {
    jobs_[mutation.view->id] = {};
    jobs_[mutation.view->id].view = mutation.view;
  } else if (Job* const job = Find(mutation.view->id); job != nullptr) {
    job->view = mutation.view;
  }
}

void MemoryState::Write(const server::DeleteJob& mutation) {
  last_job_id_ = std::max(last_job_id_, mutation.job_id);
  jobs_.erase(mutation.job_id);
  tombstones_[mutation.revision] = mutation.name;
}

void MemoryState::Write(const server::AddTransition& mutation) {
  if (Job* const job = Find(mutation.job_id); job != nullptr) {
    job->transitions[mutation.revision] = mutation.transition;
  }
}

void MemoryState::Write(const server::AddGeneration& /*mutation*/) {}

void MemoryState::Write(const server::PutRankExit& mutation) {
  if (Job* const job = Find(mutation.job_id); job != nullptr) {
    job->exits[{mutation.generation, mutation.rank}] = mutation.exit_code;
  }
}

void MemoryState::Write(const server::PutGemmRecord& mutation) {
  if (Job* const job = Find(mutation.job_id); job != nullptr) {
    job->gemm_record = mutation.record;
  }
}

void MemoryState::Write(const server::PutCheckpoint& mutation) {
  Job* const job = Find(mutation.job_id);
  if (job == nullptr) {
    return;
  }
  const lasp::v1::Checkpoint& checkpoint = mutation.checkpoint;
  const std::pair<int64_t, int64_t> key = {checkpoint.step(), checkpoint.generation()};
  job->checkpoints[key] = checkpoint;
  if (checkpoint.state() != lasp::v1::Checkpoint::STATE_WRITING) {
    job->shards.erase(key);
  }
}

void MemoryState::Write(const server::DeleteCheckpoint& mutation) {
  if (Job* const job = Find(mutation.job_id); job != nullptr) {
    job->checkpoints.erase({mutation.step, mutation.generation});
    job->shards.erase({mutation.step, mutation.generation});
  }
}

void MemoryState::Write(const server::AddCheckpointShard& mutation) {
  if (Job* const job = Find(mutation.job_id); job != nullptr) {
    job->shards[{mutation.step, mutation.generation}][mutation.rank] = mutation.shard;
  }
}

void MemoryState::Write(const server::PutCheckpointRemoval& mutation) {
  checkpoint_removals_[mutation.job_id] = mutation;
}

void MemoryState::Write(const server::DeleteCheckpointRemoval& mutation) {
  checkpoint_removals_.erase(mutation.job_id);
}

void MemoryState::Write(const server::PutSteps& mutation) {
  Job* const job = Find(mutation.job_id);
  for (const lasp::v1::StepMetrics& step : mutation.steps) {
    if (job != nullptr && job->steps[step.step()].generation() <= step.generation()) {
      job->steps[step.step()] = step;
    }
  }
}

void MemoryState::Write(const server::PutWorker& mutation) {
  workers_[mutation.worker_id] = mutation;
}

void MemoryState::Write(const server::DeleteWorker& mutation) {
  workers_.erase(mutation.worker_id);
}

void MemoryState::Write(const server::PutWorkerFailure& mutation) {
  worker_failures_.push_back(mutation);
}

void MemoryState::Write(const server::DeleteWorkerFailures& mutation) {
  std::erase_if(worker_failures_, [&mutation](const server::PutWorkerFailure& failure) {
    return failure.worker_id == mutation.worker_id && failure.time < mutation.before;
  });
}

void MemoryState::Write(const server::PutRequest& mutation) { requests_.push_back(mutation); }

void MemoryState::Write(const server::ExpireRequests& mutation) {
  std::erase_if(requests_, [&mutation](const server::PutRequest& request) {
    return request.expire_time <= mutation.now;
  });
}

void MemoryState::Write(const server::CompactTombstones& mutation) {
  tombstones_.erase(tombstones_.begin(), tombstones_.upper_bound(mutation.revision));
  compacted_revision_ = std::max(compacted_revision_, mutation.revision);
}

void MemoryState::Write(const server::AddAuditRecord& /*mutation*/) {}

void MemoryState::Write(const server::EndAdoption& /*mutation*/) {}

void MemoryState::Write(const server::TrimAudit& /*mutation*/) {}

absl::StatusOr<StoreContents> MemoryState::Load() {
  constexpr int kRevisionBitsPerRun = 40;
  StoreContents contents;
  contents.base_revision = ++runs_ << kRevisionBitsPerRun;
  contents.last_job_id = last_job_id_;
  contents.jobs.reserve(jobs_.size());
  for (const auto& [id, job] : jobs_) {
    const server::JobState state = job.view->job.state();
    const int64_t generation = job.view->job.generation();
    contents.last_job_id = std::max(contents.last_job_id, id);
    StoredJob& stored = contents.jobs.emplace_back();
    stored.view = job.view;
    if (server::MayHaveRanks(state)) {
      for (const auto& [key, code] : job.exits) {
        if (key.first == generation) {
          stored.exits.push_back({.generation = generation, .rank = key.second, .exit_code = code});
        }
      }
      AddEnds(job.steps, generation, &stored.steps);
    }
    if (!server::IsFinished(state) && generation > 0) {
      stored.gemm_record = job.gemm_record;
    }
    for (const auto& [key, checkpoint] : job.checkpoints) {
      server::StoredCheckpoint& row = stored.checkpoints.emplace_back();
      row.checkpoint = checkpoint;
      if (const auto shards = job.shards.find(key); shards != job.shards.end()) {
        for (const auto& [rank, shard] : shards->second) {
          row.shards.push_back(shard);
        }
      }
    }
  }
  contents.checkpoint_removals.reserve(checkpoint_removals_.size());
  for (const auto& [id, removal] : checkpoint_removals_) {
    contents.checkpoint_removals.push_back(removal);
  }
  contents.worker_failures = worker_failures_;
  contents.workers.reserve(workers_.size());
  for (const auto& [id, worker] : workers_) {
    contents.workers.push_back(worker);
  }
  std::vector<const server::PutRequest*> newest;
  newest.reserve(requests_.size());
  for (const server::PutRequest& request : requests_) {
    newest.push_back(&request);
  }
  std::sort(newest.begin(), newest.end(),
            [](const server::PutRequest* a, const server::PutRequest* b) {
              // Later ones lie behind earlier ones.
              return a->expire_time != b->expire_time ? a->expire_time > b->expire_time : a > b;
            });
  contents.requests.reserve(newest.size());
  for (const server::PutRequest* const request : newest) {
    contents.requests.push_back(*request);
  }
  contents.tombstones.reserve(tombstones_.size());
  for (const auto& [revision, name] : tombstones_) {
    contents.tombstones.push_back({.revision = revision, .name = name});
  }
  contents.compacted_revision = compacted_revision_;
  return contents;
}

absl::StatusOr<std::vector<lasp::v1::Transition>> MemoryState::Transitions(int64_t job_id,
                                                                           int limit) {
  std::vector<lasp::v1::Transition> latest;
  if (const Job* const job = Find(job_id); job != nullptr) {
    const auto skipped =
        std::max<int64_t>(0, static_cast<int64_t>(job->transitions.size()) - limit);
    for (auto row = std::next(job->transitions.begin(), skipped); row != job->transitions.end();
         ++row) {
      latest.push_back(row->second);
    }
  }
  return latest;
}

absl::StatusOr<std::vector<StoredTransition>> MemoryState::LatestTransitions(int limit) {
  std::vector<StoredTransition> all;
  for (const auto& [id, job] : jobs_) {
    for (const auto& [revision, transition] : job.transitions) {
      all.push_back({.job_id = id, .revision = revision, .transition = transition});
    }
  }
  std::sort(all.begin(), all.end(), [](const StoredTransition& a, const StoredTransition& b) {
    return a.revision > b.revision;
  });
  all.resize(std::min(all.size(), static_cast<size_t>(limit)));
  return all;
}

}  // namespace lasp::simulation
