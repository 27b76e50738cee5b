// Gangs, first in, first out: which jobs start now, and where their ranks go.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "server/slot_index.h"

namespace lasp::server {

struct SchedulerJob {
  int world_size = 1;
  // Ranks of one sequence-parallel group: contiguous, and best kept on one host.
  int group_size = 1;
  // Workers (as in the index) to use only where nothing else fits.
  std::vector<int> avoid;
};

// Where one job starts: `workers[rank]` is the rank's worker.
struct Placement {
  size_t job = 0;
  std::vector<int> workers;
};

struct Schedule {
  // In the order of the jobs.
  std::vector<Placement> placements;
  // The first job that waits for slots, behind which nothing was considered.
  std::optional<size_t> blocked;
};

// `jobs` in the order in which they are to start; what is placed is taken from `slots`. A job gets
// all its slots or none; one that does not fit now holds back those behind it, unless it needs more
// than `cluster_slots`, which is all there would be if everything else ended. A job that fits on
// one worker goes on the fullest one that has room; otherwise each of its groups does, and a group
// that no worker has room for is spread over as few as possible. The cost depends on the ranks
// placed, not on the number of workers.
Schedule MakeSchedule(SlotIndex* slots, const std::vector<SchedulerJob>& jobs, int cluster_slots);

}  // namespace lasp::server
