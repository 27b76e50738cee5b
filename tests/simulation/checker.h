// Holds the coordinator to its word: follows what becomes durable, what leaves for agents and what
// users are told, and compares.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lasp/v1/worker_service.pb.h"
#include "server/job_store.h"
#include "tests/simulation/checkpoint_files.h"
#include "tests/simulation/context.h"

namespace lasp::simulation {

// A job as the durable transactions have left it.
struct JobShadow {
  using State = lasp::v1::TrainingJob::State;

  std::string name;
  std::string uid;
  State state = lasp::v1::TrainingJob::STATE_UNSPECIFIED;
  // Where its latest transition led.
  State transition_state = lasp::v1::TrainingJob::STATE_UNSPECIFIED;
  int64_t revision = 0;
  int64_t transition_revision = 0;
  int64_t generation = 0;
  int64_t max_steps = 0;
  std::set<int64_t> generations;
  // By rank: worker and slot.
  std::vector<std::pair<std::string, int>> places;
  // Of the present generation, by rank.
  std::map<int, int> exits;
  // The generations of each step's rows.
  std::map<int64_t, std::set<int64_t>> steps;
  // What a generation goes on from: the step and the generation that trained it.
  std::map<int64_t, std::pair<int64_t, int64_t>> starts;
  // By step and generation.
  std::map<std::pair<int64_t, int64_t>, lasp::v1::Checkpoint> checkpoints;

  // Whether its ranks train, or are about to.
  bool live() const {
    return state == lasp::v1::TrainingJob::STATE_STARTING ||
           state == lasp::v1::TrainingJob::STATE_RUNNING;
  }
};

class Checker {
 public:
  Checker(Context* context, const CheckpointFiles* files) : context_(context), files_(files) {}

  // --- the store ---
  // A transaction has become durable.
  void OnCommit(const std::vector<server::Mutation>& mutations);
  // What a start of the coordinator has found.
  void OnLoad(const server::StoreContents& contents);

  // --- what leaves the coordinator ---
  void OnSend(const lasp::v1::ConnectResponse& message);
  // The coordinator has acknowledged a report that it took from this worker.
  void OnAcknowledged(const std::string& worker, const lasp::v1::ConnectRequest& report);

  // A user was told that a job was created, or asks for its deletion, which may then have happened.
  void OnCreated(const std::string& uid) { created_.insert(uid); }

  void OnDeletionAsked(const std::string& uid) { created_.erase(uid); }

  // --- the disk with checkpoints ---
  // The coordinator removes a checkpoint; all of a job's.
  void OnRemoval(const std::string& uid, int64_t step, int64_t generation);
  void OnRemoval(const std::string& uid);
  // Every committed checkpoint is there.
  void CheckCheckpoints();

  // Null where there is none.
  const JobShadow* FindByUid(const std::string& uid) const;

  const std::map<int64_t, JobShadow>& jobs() const { return jobs_; }

  // A step row carries where it comes from, so that a forged fence is seen.
  static int64_t Origin(int64_t generation, int64_t step) { return generation * kOrigin + step; }

 private:
  static constexpr int64_t kOrigin = 1'000'000;

  void Take(const server::PutJob& mutation);
  void Take(const server::DeleteJob& mutation);
  void Take(const server::AddTransition& mutation);
  void Take(const server::AddGeneration& mutation);
  void Take(const server::PutRankExit& mutation);
  void Take(const server::PutSteps& mutation);
  void Take(const server::PutCheckpoint& mutation);
  void Take(const server::DeleteCheckpoint& mutation);

  template <typename Other>
  void Take(const Other& /*mutation*/) {}

  void CheckJob(const JobShadow& job);
  void CheckPlaces();
  void CheckStart(const JobShadow& job, const lasp::v1::Assignment& assignment);
  void CheckHistory(const JobShadow& job);
  void CheckCheckpoint(const JobShadow& job, const lasp::v1::Checkpoint& checkpoint);

  Context* const context_;
  const CheckpointFiles* const files_;
  std::map<int64_t, JobShadow> jobs_;
  // Of jobs that users were told of and have not asked to delete.
  std::set<std::string> created_;
  // Jobs that the present transaction changes.
  std::set<int64_t> touched_;
};

}  // namespace lasp::simulation
