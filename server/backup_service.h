// Backups of the store, over gRPC.
#pragma once

#include "lasp/v1/backup_service.grpc.pb.h"
#include "server/caller.h"
#include "server/service_parts.h"

namespace lasp::server {

class BackupService final : public v1::BackupService::CallbackService {
 public:
  explicit BackupService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* CreateBackup(grpc::CallbackServerContext* context,
                                         const v1::CreateBackupRequest* request,
                                         v1::Backup* response) override;
  grpc::ServerUnaryReactor* ListBackups(grpc::CallbackServerContext* context,
                                        const v1::ListBackupsRequest* request,
                                        v1::ListBackupsResponse* response) override;

 private:
  // Makes a backup, records it, and ends the call.
  void Create(const Caller& caller, grpc::ServerUnaryReactor* reactor, v1::Backup* response);

  const ServiceParts parts_;
};

}  // namespace lasp::server
