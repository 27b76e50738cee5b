// The line to the coordinator: one channel, the services' stubs, deadlines.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/v1/audit_service.grpc.pb.h"
#include "lasp/v1/backup_service.grpc.pb.h"
#include "lasp/v1/checkpoint_service.grpc.pb.h"
#include "lasp/v1/event_service.grpc.pb.h"
#include "lasp/v1/log_service.grpc.pb.h"
#include "lasp/v1/metrics_service.grpc.pb.h"
#include "lasp/v1/server_service.grpc.pb.h"
#include "lasp/v1/training_job_service.grpc.pb.h"
#include "lasp/v1/worker_admin_service.grpc.pb.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/status_conversion.h"

namespace lasp::client {

inline constexpr absl::Duration kReadDeadline = absl::Seconds(10);
inline constexpr absl::Duration kMutationDeadline = absl::Seconds(30);

class Connection {
 public:
  // Reaches the coordinator at `address` (host:port) or gives UNAVAILABLE within a few seconds.
  // `timeout` replaces the deadline of every call.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const std::string& address,
                                                          const ChannelSecurity& security,
                                                          std::optional<absl::Duration> timeout);

  // Waits until the coordinator can be reached again. Returns false when the time is over.
  bool WaitUntilReachable(absl::Duration timeout);

  // One call, for example Call(&jobs(), &TrainingJobService::Stub::GetTrainingJob, request, …).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub* stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request, absl::Duration deadline) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_.value_or(deadline)));
    Response response;
    const grpc::Status status = (stub->*method)(&context, request, &response);
    if (!status.ok()) {
      return FromGrpcStatus(status);
    }
    return response;
  }

  lasp::v1::TrainingJobService::Stub& jobs() { return *jobs_; }

  lasp::v1::MetricsService::Stub& metrics() { return *metrics_; }

  lasp::v1::LogService::Stub& logs() { return *logs_; }

  lasp::v1::WorkerAdminService::Stub& workers() { return *workers_; }

  lasp::v1::EventService::Stub& events() { return *events_; }

  lasp::v1::ServerService::Stub& server() { return *server_; }

  lasp::v1::AuditService::Stub& audit() { return *audit_; }

  lasp::v1::CheckpointService::Stub& checkpoints() { return *checkpoints_; }

  lasp::v1::BackupService::Stub& backups() { return *backups_; }

 private:
  Connection(std::shared_ptr<grpc::Channel> channel, std::optional<absl::Duration> timeout);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::optional<absl::Duration> timeout_;
  const std::unique_ptr<lasp::v1::TrainingJobService::Stub> jobs_;
  const std::unique_ptr<lasp::v1::MetricsService::Stub> metrics_;
  const std::unique_ptr<lasp::v1::LogService::Stub> logs_;
  const std::unique_ptr<lasp::v1::WorkerAdminService::Stub> workers_;
  const std::unique_ptr<lasp::v1::EventService::Stub> events_;
  const std::unique_ptr<lasp::v1::ServerService::Stub> server_;
  const std::unique_ptr<lasp::v1::AuditService::Stub> audit_;
  const std::unique_ptr<lasp::v1::CheckpointService::Stub> checkpoints_;
  const std::unique_ptr<lasp::v1::BackupService::Stub> backups_;
};

}  // namespace lasp::client
