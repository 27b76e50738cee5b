// What the core tells about itself, for metrics. Every method does nothing unless overridden.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::server {

// Called from the core's threads without locks held: thread-safe and quick.
class CoreObserver {
 public:
  using State = lasp::v1::TrainingJob::State;

  virtual ~CoreObserver() = default;

  // A job has changed its state; from STATE_UNSPECIFIED when it is new, to it when it is deleted.
  virtual void OnTransition(State /*from*/, State /*to*/, absl::string_view /*reason*/) {}

  // A generation has been started after `queued` of waiting.
  virtual void OnGenerationStarted(absl::Duration /*queued*/) {}

  // All its ranks train, this long after it was started.
  virtual void OnGenerationRunning(absl::Duration /*startup*/) {}

  // An agent was not heard of for a whole lease.
  virtual void OnLeaseExpired() {}

  // A failure was noticed; `reason` as in the transition.
  virtual void OnGenerationFailed(absl::string_view /*reason*/) {}

  // A checkpoint was committed, failed, or found damaged; `took` from its first shard to the
  // commit.
  virtual void OnCheckpoint(lasp::v1::Checkpoint::State /*state*/, absl::Duration /*took*/) {}

  // A job was refused because its project has as many in the queue as it may.
  virtual void OnQueueFull() {}

  // A message of an older generation was refused.
  virtual void OnStaleMessage() {}

  // One transaction with this many rows changed took this long, sync included.
  virtual void OnCommit(size_t /*mutations*/, absl::Duration /*took*/) {}

  // One read of the store.
  virtual void OnRead(absl::Duration /*took*/) {}

  // The store cannot write (or can again).
  virtual void OnStoreHealth(bool /*healthy*/) {}

  // One pass of the scheduler.
  virtual void OnSchedulerPass(absl::Duration /*took*/, int /*placed*/) {}

  // Steps stored, and bytes of logs taken in.
  virtual void OnStepsStored(size_t /*count*/) {}

  virtual void OnLogBytes(size_t /*count*/) {}

  // A piece of a log could not be written; the agent will send it again.
  virtual void OnLogChunkDropped() {}
};

}  // namespace lasp::server
