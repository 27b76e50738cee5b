#include "worker/agent/rank_exit.h"

#include <string.h>
#include <sys/wait.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"

namespace lasp::worker {
namespace {

constexpr int kSignalBase = 128;

absl::Status Synthesize(const std::string& rank, int wait_status, const std::string& agent_reason) {
  if (!agent_reason.empty()) {
    return absl::CancelledError(absl::StrCat(rank, " was killed: ", agent_reason));
  }
  if (WIFSIGNALED(wait_status)) {
    const int signal_number = WTERMSIG(wait_status);
    return absl::UnavailableError(absl::StrCat(rank, " was killed by signal ", signal_number, " (",
                                               sigdescr_np(signal_number), ")"));
  }
  return absl::InternalError(absl::StrCat(rank, " ended with exit code ", WEXITSTATUS(wait_status),
                                          " and did not say why; its log may"));
}

}  // namespace

bool SameFence(const lasp::v1::Fence& a, const lasp::v1::Fence& b) {
  const bool same_job = a.uid().empty() || b.uid().empty() ? a.training_job() == b.training_job()
                                                           : a.uid() == b.uid();
  return same_job && a.generation() == b.generation() && a.rank() == b.rank();
}

lasp::v1::RankExited DescribeExit(const lasp::v1::Fence& fence, int slot, int wait_status,
                                  const std::optional<lasp::internal::v1::RankFinished>& finished,
                                  const std::string& agent_reason, int64_t last_step,
                                  int64_t max_steps) {
  lasp::v1::RankExited exited;
  *exited.mutable_fence() = fence;
  exited.set_slot(slot);
  exited.set_step(last_step);
  exited.set_exit_code(WIFSIGNALED(wait_status) ? kSignalBase + WTERMSIG(wait_status)
                                                : WEXITSTATUS(wait_status));
  if (finished.has_value()) {
    *exited.mutable_status() = finished->status();
    exited.set_step(std::max(last_step, finished->step()));
    if (finished->has_state_left()) {
      *exited.mutable_state_left() = finished->state_left();
    }
    if (exited.exit_code() == kRankDone && exited.step() < max_steps) {
      exited.set_exit_code(kRankRetry);
      *exited.mutable_status() = StatusToProto(absl::InternalError(
          absl::StrCat("rank ", fence.rank(), " ended as if it was done, after step ",
                       exited.step(), " of ", max_steps)));
    }
    return exited;
  }
  if (exited.exit_code() == kRankDone) {
    exited.set_exit_code(kRankRetry);
  }
  *exited.mutable_status() =
      StatusToProto(Synthesize(absl::StrCat("rank ", fence.rank()), wait_status, agent_reason));
  return exited;
}

lasp::v1::RankExited DescribeRefusal(const lasp::v1::Fence& fence, int slot, int exit_code,
                                     const absl::Status& why) {
  lasp::v1::RankExited exited;
  *exited.mutable_fence() = fence;
  exited.set_slot(slot);
  exited.set_exit_code(exit_code);
  *exited.mutable_status() = StatusToProto(why);
  return exited;
}

}  // namespace lasp::worker
