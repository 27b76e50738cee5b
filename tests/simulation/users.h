// Those who submit jobs and change their minds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lasp/v1/training_job_service.pb.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/context.h"
#include "tests/simulation/coordinator.h"

namespace lasp::simulation {

class Users {
 public:
  Users(Context* context, Checker* checker, Coordinator* coordinator,
        std::vector<std::string> worker_ids, bool gpus);

  // Until Rest they ask for something now and then.
  void Begin();
  // Most drains are undone, and nobody wants anything more.
  void Rest();

  // Requests without an answer.
  int unanswered() const { return unanswered_; }

  int submitted() const { return submitted_; }

 private:
  struct Known {
    std::string name;
    std::string uid;
  };

  void PlanWish();
  void Wish();
  void Submit();
  void Send(const lasp::v1::CreateTrainingJobRequest& request);
  void Delete(const Known& job);
  void Drain(const std::string& worker_id, bool undo, int attempts);
  template <typename Request, typename Method>
  void Ask(const char* what, const Known& job, Method method);

  Context* const context_;
  Checker* const checker_;
  Coordinator* const coordinator_;
  const std::vector<std::string> worker_ids_;
  const bool gpus_;
  Random random_;
  absl::Duration mean_pause_;
  bool resting_ = false;
  int submitted_ = 0;
  int unanswered_ = 0;
  std::vector<Known> known_;
  // By worker: whether a drain was asked for last.
  std::map<std::string, bool> drains_;
};

}  // namespace lasp::simulation
