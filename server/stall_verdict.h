// Who keeps a job that hangs from going on. In a synchronous job everybody waits for somebody: the
// culprit is the one who does not, and not the many who do.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::server {

// What is known of one rank, in rank order.
struct StalledRank {
  std::string worker_id;
  lasp::v1::RankProgress progress;
};

struct StallVerdict {
  // In ascending order; empty where nobody can be told from the others.
  std::vector<int> culprits;
  // Whether the ranks themselves are at fault, not perhaps a connection between them.
  bool certain = false;
  // A clause: "rank 2 on workers/b does not wait for anybody".
  std::string why;
};

// By rank: who does not speak any more; else who computes while others wait for it; else, along
// the ranks that wait for one another, who waits for what has been sent already, or for whom most
// wait. Pure.
StallVerdict JudgeStall(const std::vector<StalledRank>& ranks);

}  // namespace lasp::server
