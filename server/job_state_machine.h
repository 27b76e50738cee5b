// What may follow what: the one table of a job's states.
#pragma once

#include <array>
#include <optional>

#include "absl/strings/string_view.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::server {

using JobState = lasp::v1::TrainingJob::State;

// What happens to a job.
enum class JobEvent {
  // The scheduler has given it all its slots; a new generation starts.
  kGranted,
  // Every rank is ready: they train.
  kAllReady,
  // A rank or its agent died, or a deadline passed, and the budget allows another generation.
  kGenerationFailed,
  // Ranks stopped because their worker drains. Costs no budget.
  kGenerationDrained,
  // It failed in a way that another generation would not mend, or a budget (of restarts, of time)
  // is
  // spent.
  kFailedForGood,
  // Every rank has done all steps.
  kAllDone,
  kCancelRequested,
  kSuspendRequested,
  kResumeRequested,
  // No rank of the generation that was stopped is left.
  kRanksGone,
};

inline constexpr std::array kJobEvents = {JobEvent::kGranted,          JobEvent::kAllReady,
                                          JobEvent::kGenerationFailed, JobEvent::kGenerationDrained,
                                          JobEvent::kFailedForGood,    JobEvent::kAllDone,
                                          JobEvent::kCancelRequested,  JobEvent::kSuspendRequested,
                                          JobEvent::kResumeRequested,  JobEvent::kRanksGone};

// The state after `event` in `state`; none where the event is not possible or changes nothing.
std::optional<JobState> NextState(JobState state, JobEvent event);

// SUCCEEDED, FAILED or CANCELLED.
bool IsFinished(JobState state);

// Whether a job in this state may have ranks.
bool MayHaveRanks(JobState state);

// "RUNNING"; "UNSPECIFIED" for what is no state.
absl::string_view JobStateName(JobState state);

// Why a job is in its state. Part of the API: never renamed.
namespace reason {

inline constexpr char kSubmitted[] = "SUBMITTED";
inline constexpr char kWaitingForSlots[] = "WAITING_FOR_SLOTS";
inline constexpr char kWaitingForTurn[] = "WAITING_FOR_TURN";
inline constexpr char kNoCapacity[] = "NO_CAPACITY";
inline constexpr char kNoWorkers[] = "NO_WORKERS";
inline constexpr char kScheduled[] = "SCHEDULED";
inline constexpr char kRestartedFromStart[] = "RESTARTED_FROM_START";
inline constexpr char kRestartedFromCheckpoint[] = "RESTARTED_FROM_CHECKPOINT";
inline constexpr char kRebuiltFromSurvivors[] = "REBUILT_FROM_SURVIVORS";
inline constexpr char kTraining[] = "TRAINING";
inline constexpr char kRankFailed[] = "RANK_FAILED";
inline constexpr char kRankKilled[] = "RANK_KILLED";
inline constexpr char kRankLost[] = "RANK_LOST";
inline constexpr char kRankStalled[] = "RANK_STALLED";
inline constexpr char kNonFiniteStep[] = "NON_FINITE_STEP";
inline constexpr char kOutlierStep[] = "OUTLIER_STEP";
inline constexpr char kNoProgress[] = "NO_PROGRESS";
inline constexpr char kStartLost[] = "START_LOST";
inline constexpr char kAgentLost[] = "AGENT_LOST";
inline constexpr char kAgentRestarted[] = "AGENT_RESTARTED";
inline constexpr char kHostSuspect[] = "HOST_SUSPECT";
inline constexpr char kStartTimeout[] = "START_TIMEOUT";
inline constexpr char kFinishTimeout[] = "FINISH_TIMEOUT";
inline constexpr char kWorkerDrained[] = "WORKER_DRAINED";
inline constexpr char kWrongConfiguration[] = "WRONG_CONFIGURATION";
inline constexpr char kDoNotRequeue[] = "DO_NOT_REQUEUE";
inline constexpr char kRestartsExhausted[] = "RESTARTS_EXHAUSTED";
inline constexpr char kQueueTimeout[] = "QUEUE_TIMEOUT";
inline constexpr char kRunTimeout[] = "RUN_TIMEOUT";
inline constexpr char kCancelRequested[] = "CANCEL_REQUESTED";
inline constexpr char kCancelled[] = "CANCELLED";
inline constexpr char kSuspendRequested[] = "SUSPEND_REQUESTED";
inline constexpr char kSuspended[] = "SUSPENDED";
inline constexpr char kResumed[] = "RESUMED";
inline constexpr char kAllStepsDone[] = "ALL_STEPS_DONE";

// Of Stop messages only.
inline constexpr char kStaleGeneration[] = "STALE_GENERATION";
inline constexpr char kPeerFailed[] = "PEER_FAILED";

}  // namespace reason

}  // namespace lasp::server
