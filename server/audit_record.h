// The first half of an audit record: who did what to what, and when.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/v1/audit_service.pb.h"
#include "proto/rpc/proto_time.h"
#include "server/caller.h"

namespace lasp::server {

// What changes something: `method` of a record.
namespace audit {
inline constexpr char kCreate[] = "TrainingJobService.CreateTrainingJob";
inline constexpr char kUpdate[] = "TrainingJobService.UpdateTrainingJob";
inline constexpr char kDelete[] = "TrainingJobService.DeleteTrainingJob";
inline constexpr char kCancel[] = "TrainingJobService.CancelTrainingJob";
inline constexpr char kSuspend[] = "TrainingJobService.SuspendTrainingJob";
inline constexpr char kResume[] = "TrainingJobService.ResumeTrainingJob";
inline constexpr char kDrainWorker[] = "WorkerAdminService.DrainWorker";
inline constexpr char kVerifyCheckpoint[] = "CheckpointService.VerifyCheckpoint";
inline constexpr char kDeleteCheckpoint[] = "CheckpointService.DeleteCheckpoint";
inline constexpr char kExportCheckpoint[] = "CheckpointService.ExportCheckpoint";
inline constexpr char kCreateBackup[] = "BackupService.CreateBackup";
// By lasp-server itself.
inline constexpr char kRestore[] = "restore";
// A finished job whose time is over.
inline constexpr char kRetention[] = "retention";
}  // namespace audit

// Of something done once; `method` without the package.
inline lasp::v1::AuditRecord NewAuditRecord(const Caller& caller, absl::string_view method,
                                            absl::string_view resource, absl::Time now) {
  lasp::v1::AuditRecord record;
  *record.mutable_time() = ToProtoTime(now);
  record.set_principal(caller.principal);
  record.set_role(caller.role);
  record.set_peer(caller.peer);
  record.set_method(std::string(method));
  record.set_resource(std::string(resource));
  record.set_count(1);
  return record;
}

}  // namespace lasp::server
