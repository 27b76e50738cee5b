// The CPU's runtime, with a fault put into it: lasp-rank-faulty is lasp-rank but for this.
#include <optional>

#include "proto/rpc/status_macros.h"
#include "tests/faults/rank/fault_plan.h"
#include "tests/faults/rank/faulty_backend.h"
#include "tests/faults/rank/faulty_communicator.h"
#include "worker/engine/cpu_rank_runtime.h"
#include "worker/engine/rank_runtime.h"

namespace lasp::worker {
namespace {

class FaultyRankRuntime : public RankRuntime {
 public:
  FaultyRankRuntime(std::unique_ptr<RankRuntime> inner, const lasp::internal::v1::Setup& setup)
      : inner_(std::move(inner)), plan_(setup), backend_(&inner_->backend(), &plan_, &step_) {}

  Backend& backend() override { return backend_; }

  absl::StatusOr<std::string> Listen() override { return inner_->Listen(); }

  absl::Status Connect(const std::vector<std::string>& addresses,
                       const std::function<bool()>& give_up) override {
    plan_.Reach(FaultPlace::kStartUp);
    if (plan_.HangsAt(FaultPlace::kStartUp)) {
      HangForever();
    }
    LASP_RETURN_IF_ERROR(inner_->Connect(addresses, give_up));
    sp_.emplace(&inner_->sp(), &plan_, &step_);
    world_.emplace(&inner_->world(), &plan_, &step_);
    return absl::OkStatus();
  }

  Communicator& sp() override { return *sp_; }

  Communicator& world() override { return *world_; }

  Communicator* shards() override { return inner_->shards(); }

  Communicator* replicas() override { return inner_->replicas(); }

  Communicator* wrap() override { return inner_->wrap(); }

  const CollectiveJournal& journal() const override { return inner_->journal(); }

  absl::StatusOr<std::string> AgreeOnAlgorithms() override { return inner_->AgreeOnAlgorithms(); }

  void Abandon() override { inner_->Abandon(); }

 private:
  const std::unique_ptr<RankRuntime> inner_;
  FaultPlan plan_;
  StepPlace step_;
  FaultyBackend backend_;
  std::optional<FaultyCommunicator> sp_;
  std::optional<FaultyCommunicator> world_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  LASP_ASSIGN_OR_RETURN(std::unique_ptr<RankRuntime> inner, CreateCpuRankRuntime(setup, grid));
  if (setup.path_roots().empty()) {
    return inner;
  }
  return std::make_unique<FaultyRankRuntime>(std::move(inner), setup);
}

const char* RankProgramName() { return "lasp-rank"; }

}  // namespace lasp::worker
