// The one writer of jobs, workers, leases and generations: an actor with a bounded queue.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lasp/v1/audit_service.pb.h"
#include "lasp/v1/checkpoint_service.pb.h"
#include "lasp/v1/training_job_service.pb.h"
#include "lasp/v1/worker_admin_service.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "server/agent_link.h"
#include "server/caller.h"
#include "server/controller_inbox.h"
#include "server/core_callbacks.h"
#include "server/core_options.h"
#include "server/job_view.h"
#include "server/worker_catalog.h"

namespace lasp::server {

class AgentSession;
class JobEngine;
struct CoreParts;

// Thread-safe. Commands return at once; each callback is called exactly once, from the controller's
// thread, after what it tells has been committed (or by Stop, with UNAVAILABLE), and must not
// block. RESOURCE_EXHAUSTED with a RetryInfo when too much waits, UNAVAILABLE with a RetryInfo
// (reason STORE_UNAVAILABLE) while the disk cannot be written.
class JobController {
 public:
  // Restores what the store holds, then starts the thread. All parts must outlive the controller.
  static absl::StatusOr<std::unique_ptr<JobController>> Start(const CoreOptions& options,
                                                              const CoreParts& parts);
  // The same without a thread, for a simulation: who calls Step is the controller's thread.
  static absl::StatusOr<std::unique_ptr<JobController>> StartStepped(const CoreOptions& options,
                                                                     const CoreParts& parts);
  // Handles what has come in, without waiting for more; `sweep`: a sweep's time has come. Nothing
  // after Stop, which decides and stores nothing more here: it is what a crash leaves.
  void Step(bool sweep);
  ~JobController();

  // Decides nothing more and stores what it has decided, for ten seconds at most; what is not
  // answered then, for example because the disk is full, is answered with UNAVAILABLE. The
  // destructor does it too. By one thread at a time.
  void Stop();

  JobController(const JobController&) = delete;
  JobController& operator=(const JobController&) = delete;

  // --- users. Names, ids, fields and the spec have been checked and defaults written out. What is
  // changed is stored together with the record that `caller` has changed it; a refusal is recorded
  // too. ---

  // Honours training_job_id (made from display_name where empty), request_id and validate_only.
  // INVALID_ARGUMENT (REQUEST_ID_REUSED), ALREADY_EXISTS. Where the request has not stood the
  // check, `verdict` says why, and is the answer unless the same request has been carried out
  // before: its data may have been fine then.
  void Create(lasp::v1::CreateTrainingJobRequest request, Caller caller, JobCallback done,
              absl::Status verdict = absl::OkStatus());
  // Takes display_name and labels as update_mask says (empty: both). ABORTED (ETAG_MISMATCH) where
  // the job in the request carries an etag that is not the present one.
  void Update(lasp::v1::UpdateTrainingJobRequest request, Caller caller, JobCallback done);
  // FAILED_PRECONDITION (JOB_NOT_FINISHED), ABORTED (ETAG_MISMATCH).
  void Delete(lasp::v1::DeleteTrainingJobRequest request, Caller caller, DoneCallback done);
  // Each answers when the wish is stored; the job goes on to CANCELLED or SUSPENDED by itself.
  // FAILED_PRECONDITION (WRONG_STATE) where the state does not allow it.
  void Cancel(lasp::v1::CancelTrainingJobRequest request, Caller caller, JobCallback done);
  void Suspend(lasp::v1::SuspendTrainingJobRequest request, Caller caller, JobCallback done);
  void Resume(lasp::v1::ResumeTrainingJobRequest request, Caller caller, JobCallback done);
  void DrainWorker(lasp::v1::DrainWorkerRequest request, Caller caller, WorkerCallback done);
  // Each answers when the wish is stored. NOT_FOUND, FAILED_PRECONDITION (WRONG_STATE,
  // CHECKPOINT_IN_USE).
  void VerifyCheckpoint(lasp::v1::VerifyCheckpointRequest request, Caller caller,
                        CheckpointCallback done);
  void DeleteCheckpoint(lasp::v1::DeleteCheckpointRequest request, Caller caller,
                        CheckpointCallback done);
  void ExportCheckpoint(lasp::v1::ExportCheckpointRequest request, Caller caller,
                        CheckpointCallback done);
  // Something that was done elsewhere. Answers once the record is stored.
  void Record(lasp::v1::AuditRecord record, DoneCallback done);

  // --- agents ---

  // The first message of a stream, as CheckHello wants it. The Welcome goes over the link. Reads
  // where the logs of the agent's ranks end, so it blocks on the file system.
  absl::StatusOr<std::shared_ptr<AgentSession>> Connect(lasp::v1::Hello hello,
                                                        std::shared_ptr<AgentLink> link);
  // Every later message, in order, by one thread at a time. Log chunks are written by the calling
  // thread. An error means that the stream should end with it; the agent comes again.
  absl::Status Deliver(const std::shared_ptr<AgentSession>& session,
                       lasp::v1::ConnectRequest message);
  // To be asked before a message other than a log chunk is delivered: false where too much waits;
  // then `resume` is called once, from the controller's thread, when it is worth asking again. It
  // is dropped where the controller ends first.
  bool AwaitRoom(std::function<void()> resume);
  // The stream has ended, whoever ended it. Drops the link.
  void Disconnect(const std::shared_ptr<AgentSession>& session);

  // --- for metrics and tests ---
  const ControllerInbox& inbox() const { return *inbox_; }

  // Blocks until everything queued before this call has been handled and committed: false when that
  // takes longer than `timeout`.
  bool Flush(absl::Duration timeout = absl::Seconds(30));

 private:
  JobController(const CoreOptions& options, const CoreParts& parts);

  void Run();
  // Whether the disk takes what would be decided.
  bool MayDecide() const;
  // Handles one batch, taken with `decide`; false where it is the last.
  bool HandleBatch(const ControllerInbox::Batch& batch, bool decide, bool sweep);
  void CommitDecisions();
  // After the last decision: waits for what is on its way to the disk, within reason.
  void DrainStore();
  // `name` and `resource` as in an audit record.
  template <typename Request, typename Answer, typename Method>
  void Submit(absl::string_view name, const std::string& resource, Request request, Caller caller,
              std::function<void(Answer)> done, Method method);

  const CoreOptions options_;
  const std::unique_ptr<const CoreParts> parts_;
  const std::unique_ptr<JobEngine> engine_;
  // Shared with the store's callbacks, which may outlive the controller.
  const std::shared_ptr<ControllerInbox> inbox_;
  // Since when inputs have been held back, by the clock of the parts; infinite while they are not.
  // The controller's thread's own.
  absl::Duration held_since_ = absl::InfiniteDuration();
  std::thread thread_;
};

}  // namespace lasp::server
