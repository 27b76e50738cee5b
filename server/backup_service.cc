#include "server/backup_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/proto_time.h"
#include "server/audit_record.h"
#include "server/backup_folder.h"
#include "server/principal.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

v1::Backup ToProto(const StoreBackup& backup) {
  v1::Backup proto;
  proto.set_name(absl::StrCat("backups/", backup.id));
  *proto.mutable_create_time() = ToProtoTime(backup.create_time);
  proto.set_byte_count(backup.byte_count);
  proto.set_sha256(backup.sha256);
  proto.set_path(backup.path);
  return proto;
}

}  // namespace

grpc::ServerUnaryReactor* BackupService::CreateBackup(grpc::CallbackServerContext* context,
                                                      const v1::CreateBackupRequest* /*request*/,
                                                      v1::Backup* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Caller caller = CallerOf(parts_.access, *context, parts_.clock->Now());
  return RunBlocking(
      parts_.backup_pool, reactor,
      [this, reactor, response, caller = std::move(caller)] { Create(caller, reactor, response); });
}

void BackupService::Create(const Caller& caller, grpc::ServerUnaryReactor* reactor,
                           v1::Backup* response) {
  const auto backup = parts_.core->backups().Create();
  if (!backup.ok()) {
    parts_.core->refusals().Add(caller, audit::kCreateBackup, "", backup.status());
    reactor->Finish(ToWireStatus(backup.status()));
    return;
  }
  *response = ToProto(*backup);
  parts_.core->controller().Record(
      NewAuditRecord(caller, audit::kCreateBackup, response->name(), parts_.clock->Now()),
      [pool = parts_.answer_pool, reactor](const absl::Status& status) {
        pool->RunAlways([reactor, status] { reactor->Finish(ToWireStatus(status)); });
      });
}

grpc::ServerUnaryReactor* BackupService::ListBackups(grpc::CallbackServerContext* context,
                                                     const v1::ListBackupsRequest* /*request*/,
                                                     v1::ListBackupsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor, [this, reactor, response] {
    const auto backups = parts_.core->backups().List();
    if (backups.ok()) {
      for (const StoreBackup& backup : *backups) {
        *response->add_backups() = ToProto(backup);
      }
    }
    reactor->Finish(ToWireStatus(backups.status()));
  });
}

}  // namespace lasp::server
