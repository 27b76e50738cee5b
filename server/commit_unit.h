// What a batch of decisions leads to: rows to store, and what leaves the controller once they are.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lasp/v1/event.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "server/agent_session.h"
#include "server/checkpoint_catalog.h"
#include "server/checkpoint_task.h"
#include "server/job_store.h"
#include "server/job_view.h"
#include "server/step_position.h"
#include "server/worker_catalog.h"

namespace lasp::server {

// Messages of one moment leave in this order: a run of the coordinator can be repeated.
struct ByWorker {
  bool operator()(const AgentSessionPtr& a, const AgentSessionPtr& b) const {
    return a->worker_id() != b->worker_id() ? a->worker_id() < b->worker_id() : a < b;
  }
};

// Nothing below `mutations` happens before those are durable: readers, agents and users never learn
// of a decision that a crash could undo.
struct CommitUnit {
  std::vector<Mutation> mutations;

  std::vector<JobViewPtr> published_jobs;
  // Beside each other: the deletions and the uids of the jobs.
  std::vector<DeleteJob> deleted_jobs;
  std::vector<std::string> deleted_uids;
  std::vector<std::pair<std::string, WorkerViewPtr>> published_workers;
  // By uid.
  std::map<std::string, CheckpointList> published_checkpoints;
  std::vector<CheckpointTask> checkpoint_tasks;
  // By sequence.
  std::vector<lasp::v1::Event> events;
  std::vector<std::pair<AgentSessionPtr, lasp::v1::ConnectResponse>> messages;
  // The highest sequence number of each session whose reports are stored with this unit.
  std::map<AgentSessionPtr, int64_t, ByWorker> acknowledged;
  // By job: its newest step in this unit, or nothing where its followers should only look again,
  // because the job has ended.
  std::map<int64_t, StepPosition> new_steps;
  // Jobs whose log followers should look again, because the job has ended.
  std::set<std::string> ended_uids;
  std::vector<std::function<void()>> callbacks;

  bool empty() const {
    return mutations.empty() && published_jobs.empty() && deleted_jobs.empty() &&
           published_workers.empty() && published_checkpoints.empty() && checkpoint_tasks.empty() &&
           events.empty() && messages.empty() && acknowledged.empty() && new_steps.empty() &&
           ended_uids.empty() && callbacks.empty();
  }
};

}  // namespace lasp::server
