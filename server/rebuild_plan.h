// From what the ranks of a failed generation left in the memory of their hosts: how the next one
// takes it up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lasp/v1/worker_service.pb.h"

namespace lasp::server {

struct LeftState {
  std::string worker_id;
  lasp::v1::StateLeft state;
};

// All of one generation.
struct LeftStates {
  int64_t generation = 0;
  std::vector<LeftState> states;
  // By how many generations it has been taken up.
  int takes = 0;
};

// The newest step whose shares, read on the hosts where they lie, make a whole; nothing where no
// step after `after_step` has one. `workers` are those of the new ranks, in rank order. Pure;
// linear in shares times steps among them, of which there are two at most unless somebody lies.
std::optional<lasp::v1::Rebuild> PlanRebuild(const LeftStates& left,
                                             const std::vector<std::string>& workers,
                                             int64_t after_step);

}  // namespace lasp::server
