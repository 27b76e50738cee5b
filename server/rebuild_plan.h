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
// step after `after_step` has one. Shares whose states differ are no whole together. `workers` are
// those of the new ranks, in rank order. Pure; n log n in shares.
std::optional<lasp::v1::Rebuild> PlanRebuild(const LeftStates& left,
                                             const std::vector<std::string>& workers,
                                             int64_t after_step);

// Whether ranks disagree on one and the same step, as none should.
bool StatesDiffer(const LeftStates& left);

// For a log: who left how much of which step; states that differ have different numbers.
std::string DescribeLeft(const LeftStates& left);

}  // namespace lasp::server
