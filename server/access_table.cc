#include "server/access_table.h"

#include <algorithm>
#include <iterator>

namespace lasp::server {
namespace {

constexpr AccessRule View(const char* method, bool takes_bytes = false) {
  return {method, Audience::kUsers, Role::kViewer, Scope::kProject, takes_bytes};
}

constexpr AccessRule Edit(const char* method, bool takes_bytes = false) {
  return {method, Audience::kUsers, Role::kEditor, Scope::kProject, takes_bytes};
}

// What tells of the service and its hosts.
constexpr AccessRule Look(const char* method) {
  return {method, Audience::kUsers, Role::kViewer, Scope::kAny};
}

constexpr AccessRule kRules[] = {
    Edit("/lasp.v1.TrainingJobService/CreateTrainingJob", /*takes_bytes=*/true),
    View("/lasp.v1.TrainingJobService/GetTrainingJob"),
    View("/lasp.v1.TrainingJobService/ListTrainingJobs"),
    Edit("/lasp.v1.TrainingJobService/UpdateTrainingJob"),
    Edit("/lasp.v1.TrainingJobService/DeleteTrainingJob"),
    Edit("/lasp.v1.TrainingJobService/CancelTrainingJob"),
    Edit("/lasp.v1.TrainingJobService/SuspendTrainingJob"),
    Edit("/lasp.v1.TrainingJobService/ResumeTrainingJob"),
    View("/lasp.v1.TrainingJobService/WatchTrainingJobs", /*takes_bytes=*/true),
    View("/lasp.v1.EventService/ListEvents"),
    View("/lasp.v1.EventService/WatchEvents"),
    View("/lasp.v1.CheckpointService/GetCheckpoint"),
    View("/lasp.v1.CheckpointService/ListCheckpoints"),
    Edit("/lasp.v1.CheckpointService/VerifyCheckpoint"),
    Edit("/lasp.v1.CheckpointService/DeleteCheckpoint"),
    // The weights leave the service.
    Edit("/lasp.v1.CheckpointService/ExportCheckpoint"),
    View("/lasp.v1.MetricsService/QueryMetrics"),
    View("/lasp.v1.MetricsService/StreamMetrics"),
    View("/lasp.v1.LogService/StreamLogs"),
    Look("/lasp.v1.WorkerAdminService/GetWorker"),
    Look("/lasp.v1.WorkerAdminService/ListWorkers"),
    {"/lasp.v1.WorkerAdminService/DrainWorker", Audience::kUsers, Role::kAdmin, Scope::kFleet},
    {"/lasp.v1.AuditService/ListAuditRecords", Audience::kUsers, Role::kAdmin, Scope::kFleet},
    {"/lasp.v1.BackupService/CreateBackup", Audience::kUsers, Role::kAdmin, Scope::kFleet},
    {"/lasp.v1.BackupService/ListBackups", Audience::kUsers, Role::kAdmin, Scope::kFleet},
    Look("/lasp.v1.ServerService/GetServerInfo"),
    {"/lasp.v1.WorkerService/Connect", Audience::kAgents},
    {"/grpc.health.v1.Health/Check", Audience::kAnyone},
    {"/grpc.health.v1.Health/Watch", Audience::kAnyone},
    Look("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
};

}  // namespace

const AccessRule* FindAccessRule(absl::string_view method) {
  const auto* found = std::find_if(std::begin(kRules), std::end(kRules),
                                   [&](const AccessRule& rule) { return rule.method == method; });
  return found == std::end(kRules) ? nullptr : found;
}

}  // namespace lasp::server
