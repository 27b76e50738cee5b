// What the controller knows of one job, and of the ranks of its present generation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "google/rpc/status.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/protocol_range.h"
#include "server/checkpoint_book.h"
#include "server/job_view.h"
#include "server/rebuild_plan.h"
#include "server/slot_kind.h"

namespace lasp::server {

// In place of an exit code, of a rank that counts as gone without one.
inline constexpr int kRankGivenUp = -1;

// One rank of the generation.
struct RankRecord {
  enum class Phase { kAssigned, kAddressed, kReady, kExited };

  std::string worker_id;
  int slot = 0;
  Phase phase = Phase::kAssigned;
  // Where it listens; opaque, perhaps empty, and never logged or stored: it may hold a secret. None
  // before the rank has said it.
  std::optional<std::string> address;
  int exit_code = 0;
  // Whether its agent has confirmed it in this run of the coordinator.
  bool attached = false;
  // How it comes on, as its agent said last; none from agents that do not say it.
  std::optional<lasp::v1::RankProgress> progress;
  // What it had said of it before, which tells one that hangs from one whose host was paused.
  absl::Duration last_idle;
  absl::Duration last_silence;
  // When it counts as gone unless its agent names it, of the monotonic clock.
  absl::Duration missing_deadline = absl::InfiniteDuration();
};

// Why a generation ended.
struct GenerationFailure {
  std::string reason;
  std::string message;
  // What the rank itself said; code 0 where it said nothing.
  google::rpc::Status status;
  // `agent/{worker}` or `coordinator`.
  std::string actor;
};

// The ranks of one generation, from the decision to start them until the last one is gone.
struct GenerationRun {
  int64_t generation = 0;
  // When it was decided to start it, of the monotonic clock.
  absl::Duration start = -absl::InfiniteDuration();
  std::vector<RankRecord> ranks;
  // The checkpoint it began from, or the generation whose state it took up; 0 for none.
  int64_t restored_step = 0;
  int64_t restored_generation = 0;
  // Whether it took up state, and what: null where that has been forgotten with the process.
  bool rebuilt = false;
  std::shared_ptr<const lasp::v1::Rebuild> rebuild;
  // Why the ranks were told to stop; empty while they should run.
  std::string stop_reason;
  // Whether they may end their step first.
  bool stop_gently = false;
  // Whether they are to leave their state behind; not those that are at fault.
  bool leave_state = false;
  std::set<int> culprits;
  absl::Duration last_stop = -absl::InfiniteDuration();
  // The newest version of the worker plane that all its agents speak; 0 where another process of
  // the coordinator started it.
  int peers_protocol = 0;
  // Whether the ranks know each other's addresses.
  bool peers_sent = false;
  // What a rank said of a failure that another one must have caused, and until when that one may
  // tell.
  std::optional<GenerationFailure> symptom;
  absl::Duration symptom_deadline = absl::InfiniteDuration();
  // When the present phase (presence, readiness, the end) must be over.
  absl::Duration deadline = absl::InfiniteDuration();
  // When it was last looked at whether its ranks come on.
  absl::Duration last_progress_check = -absl::InfiniteDuration();
  // It hangs: its ranks are to say where they are before they are killed.
  bool dump = false;
  // Ranks that have been told of as slower than the others.
  std::set<int> slow_ranks;

  bool stopping() const { return !stop_reason.empty(); }

  int CountAtLeast(RankRecord::Phase phase) const {
    int count = 0;
    for (const RankRecord& rank : ranks) {
      count += rank.phase >= phase ? 1 : 0;
    }
    return count;
  }

  bool AllGone() const {
    return CountAtLeast(RankRecord::Phase::kExited) == static_cast<int>(ranks.size());
  }
};

// Small: there may be tens of thousands of queued jobs.
struct JobRecord {
  // The newest decided state; readers get it once it is committed.
  JobViewPtr view;
  int world_size = 1;
  int group_size = 1;
  int max_restarts = 0;
  // Of recovery.max_failures_without_checkpoint; 0: no limit.
  int max_stuck = 0;
  // Of one stay in the queue, and from there to the end.
  absl::Duration max_queue_duration = absl::InfiniteDuration();
  absl::Duration max_run_duration = absl::InfiniteDuration();
  // When the present one of them is over, of the monotonic clock.
  absl::Duration time_limit = absl::InfiniteDuration();
  // What its spec asks for.
  lasp::v1::TrainingSpec::Device device = lasp::v1::TrainingSpec::DEVICE_ANY;
  // Its first generation begins with weights that are there already.
  bool has_initial_weights = false;
  // Whose ranks do all that its spec asks for.
  int spec_protocol = kWorkerProtocol.oldest;
  // Whether several ranks have each part of its state.
  bool replicated = false;
  // What ranks of its last generation left; null for nothing.
  std::unique_ptr<LeftStates> left;
  // What its last generation goes on from, which is still there while it has trained no step.
  std::unique_ptr<LeftStates> taken;
  // The slots it waits for or has.
  SlotKind kind = lasp::v1::Slot::KIND_CPU;
  // What its first generation that had one said; empty before.
  std::string gemm_record;
  CheckpointBook checkpoints;

  // The checkpoint of another job that it goes on from, without one of its own.
  const std::string& start_from() const { return view->job.start_from(); }

  // Whether its next generation goes on from something.
  bool goes_on() const { return !start_from().empty() || checkpoints.NewestCommitted() != nullptr; }

  // The progress of the present generation; in the view from the next edit on. Null where no step
  // has been reported.
  std::unique_ptr<lasp::v1::TrainingProgress> progress;
  absl::Duration last_publication = -absl::InfiniteDuration();
  // When a recovering job may start again.
  absl::Duration retry_at = -absl::InfiniteDuration();
  // When it began to wait for slots.
  absl::Duration queued_at;
  // Why the last generation ended, for a recovering job that waits for slots.
  std::string last_failure;
  // Null where no rank can exist.
  std::unique_ptr<GenerationRun> run;
  // Hosts that a rank called suspect.
  std::set<std::string> avoided_workers;
  // When a step that went wrong was told of last.
  absl::Duration last_bad_step = -absl::InfiniteDuration();

  int64_t id() const { return view->id; }

  lasp::v1::TrainingJob::State state() const { return view->job.state(); }

  const std::string& uid() const { return view->job.uid(); }

  const std::string& name() const { return view->job.name(); }

  int64_t generation() const { return view->job.generation(); }

  // Agents that do not speak this version would begin it otherwise than it should: anew, or as
  // another training than its spec says.
  int needed_protocol() const {
    return std::max(spec_protocol, has_initial_weights || goes_on() ? kCheckpointProtocol
                                                                    : kWorkerProtocol.oldest);
  }
};

}  // namespace lasp::server
