// What goes wrong in a world, and when.
#pragma once

#include <memory>
#include <vector>

#include "tests/simulation/context.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/rank_field.h"
#include "tests/simulation/simulated_agent.h"
#include "tests/simulation/simulated_store.h"

namespace lasp::simulation {

class Faults {
 public:
  using Agents = std::vector<std::unique_ptr<SimulatedAgent>>;

  Faults(Context* context, Coordinator* coordinator, Disk* disk, CheckpointFiles* files,
         RankField* field, const Agents* agents);

  // Until End something goes wrong now and then.
  void Begin();
  // Everything works again, but for a host that may stay away.
  void End();

 private:
  void Plan();
  void Strike();
  void StrikeAgent();
  void StrikeRank();
  void StrikeCheckpoints();
  void StrikeCoordinator();
  void CrashCoordinator();

  Context* const context_;
  Coordinator* const coordinator_;
  Disk* const disk_;
  CheckpointFiles* const files_;
  RankField* const field_;
  const Agents* const agents_;
  Random random_;
  const absl::Duration mean_pause_;
  bool ended_ = false;
};

}  // namespace lasp::simulation
