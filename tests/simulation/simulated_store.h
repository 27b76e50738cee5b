// The store as the coordinator sees it: what it is given becomes durable a little later, or when
// the disk works again, or never, because the process dies first.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/job_store.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/context.h"
#include "tests/simulation/durable_state.h"

namespace lasp::simulation {

// The disk, which outlives the coordinator's process.
struct Disk {
  std::unique_ptr<DurableState> state;
  // Until then it takes nothing.
  absl::Duration broken_until = absl::ZeroDuration();
  // How its next commit ends the process: kBefore it is durable, or kAfter and before anybody
  // knows.
  enum class Kill { kNone, kBefore, kAfter } kill = Kill::kNone;
};

class SimulatedStore final : public server::JobStore {
 public:
  // `crash` ends the coordinator's process, and so this store; it is not called from within a call
  // of the coordinator's. `committed` is called after callbacks.
  SimulatedStore(Context* context, Disk* disk, Checker* checker, std::function<void()> crash,
                 std::function<void()> committed);
  ~SimulatedStore() override;

  const std::string& uuid() const override { return uuid_; }

  absl::StatusOr<server::StoreContents> Load() override;
  void Commit(std::vector<server::Mutation> mutations, std::function<void()> committed) override;

  size_t pending() const override { return queue_.size(); }

  absl::Status health() const override { return health_; }

  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id,
                                                                int limit) const override;
  absl::StatusOr<std::vector<server::StoredTransition>> LatestTransitions(int limit) const override;

  // Nobody here asks for these: UNIMPLEMENTED.
  absl::StatusOr<std::vector<server::StoredTransition>> TransitionsBefore(int64_t job_id,
                                                                          int64_t before,
                                                                          int limit) const override;
  absl::StatusOr<int64_t> CountSteps(int64_t job_id, int64_t from_step,
                                     int64_t to_step) const override;
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadSteps(int64_t job_id, int64_t from_step,
                                                               int64_t to_step,
                                                               int64_t stride) const override;
  absl::StatusOr<std::vector<lasp::v1::StepMetrics>> ReadGenerationSteps(int64_t job_id,
                                                                         int64_t generation,
                                                                         int64_t after_step,
                                                                         int limit) const override;
  absl::StatusOr<int64_t> NextGeneration(int64_t job_id, int64_t generation) const override;
  absl::StatusOr<server::AuditPage> ReadAudit(const server::AuditQuery& query,
                                              int limit) const override;

 private:
  struct Transaction {
    std::vector<server::Mutation> mutations;
    std::function<void()> committed;
  };

  void PlanWrite(absl::Duration delay);
  // Writes the first `count` transactions of the queue, as one group.
  void Write(size_t count);
  // The planted bugs.
  void Distort(std::vector<server::Mutation>* mutations);
  void PlaceTwice(std::vector<server::Mutation>* mutations);
  void CommitEarly(std::vector<server::Mutation>* mutations);

  Context* const context_;
  Disk* const disk_;
  Checker* const checker_;
  const std::function<void()> crash_;
  const std::function<void()> committed_;
  const std::string uuid_ = "6a1f0f4e-2f0e-4f0c-9d55-3d1c54a7f0aa";
  Random random_;
  // Gone with this object: what was planned for it then does nothing.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::deque<Transaction> queue_;
  bool writing_ = false;
  absl::Status health_;
};

}  // namespace lasp::simulation
