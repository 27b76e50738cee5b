// How changes of state read as events.
#pragma once

#include <string>

#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/event.pb.h"
#include "lasp/v1/training_job.pb.h"
#include "lasp/v1/worker.pb.h"

namespace lasp::server {

// `sequence` is the revision that the transition is stored under.
lasp::v1::Event EventOfTransition(const std::string& job_name, int64_t sequence,
                                  const lasp::v1::Transition& transition);

// Whether it tells of a job that stays in its state: of its checkpoints, of a slow rank, of a step
// that went wrong. Such events are no transitions and are not stored.
bool ChangesNoState(const lasp::v1::Event& event);

// "READY"; empty for STATE_UNSPECIFIED.
std::string WorkerStateName(lasp::v1::Worker::State state);

// "COMMITTED".
std::string CheckpointStateName(lasp::v1::Checkpoint::State state);

// Reasons of workers' events, and of a job's last one. Part of the API: never renamed.
namespace event_reason {

inline constexpr char kDeleted[] = "DELETED";
inline constexpr char kRegistered[] = "REGISTERED";
inline constexpr char kReconnected[] = "RECONNECTED";
inline constexpr char kDisconnected[] = "DISCONNECTED";
inline constexpr char kDrainRequested[] = "DRAIN_REQUESTED";
inline constexpr char kDrainUndone[] = "DRAIN_UNDONE";
inline constexpr char kAgentDraining[] = "AGENT_DRAINING";
inline constexpr char kDrained[] = "DRAINED";
inline constexpr char kForgotten[] = "FORGOTTEN";
inline constexpr char kQuarantined[] = "QUARANTINED";
// Of a job, which stays in its state.
inline constexpr char kStraggler[] = "STRAGGLER";

}  // namespace event_reason

// Of events about a job's checkpoints: `CHECKPOINT_COMMITTED`, `_FAILED`, `_CORRUPT`.
inline constexpr char kCheckpointReasonPrefix[] = "CHECKPOINT_";

}  // namespace lasp::server
