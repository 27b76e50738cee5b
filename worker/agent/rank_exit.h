// What the end of a rank's process means.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::worker {

// Whether both name the same rank of the same attempt. A fence without uid matches by the job's
// name.
bool SameFence(const lasp::v1::Fence& a, const lasp::v1::Fence& b);

// `wait_status` is waitpid's. `finished` is the rank's last word, if it said one. `agent_reason` is
// why the agent killed it, empty where it did not. A rank that ends without a word, or before the
// last of `max_steps`, has not done its work, whatever its exit code.
lasp::v1::RankExited DescribeExit(const lasp::v1::Fence& fence, int slot, int wait_status,
                                  const std::optional<lasp::internal::v1::RankFinished>& finished,
                                  const std::string& agent_reason, int64_t last_step,
                                  int64_t max_steps);

// For a rank that was not started.
lasp::v1::RankExited DescribeRefusal(const lasp::v1::Fence& fence, int slot, int exit_code,
                                     const absl::Status& why);

}  // namespace lasp::worker
