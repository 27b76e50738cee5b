// Follows one job to its end, over lost connections and restarts of the coordinator.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "client/session.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// Shows the progress of `job` on stderr until it is SUCCEEDED, FAILED or CANCELLED, and gives its
// last form. `on_update` is called with each form that differs from the one before, the first
// included; `new_state` says whether state, reason or generation changed.
//
// CANCELLED after Ctrl-C: the job goes on. NOT_FOUND where it is deleted meanwhile, whether
// another job has its name by then or not. UNAVAILABLE where the coordinator is away for more than
// five minutes.
absl::StatusOr<lasp::v1::TrainingJob> FollowJob(
    const lasp::v1::TrainingJob& job,
    const std::function<void(const lasp::v1::TrainingJob&, bool new_state)>& on_update,
    Session* session);

// The end of a command that waits: an exit code for the job's last form, or for the error after the
// person has been told how to attach again.
absl::StatusOr<int> FollowResult(const absl::StatusOr<lasp::v1::TrainingJob>& last,
                                 const lasp::v1::TrainingJob& job, Session* session);

}  // namespace lasp::client
