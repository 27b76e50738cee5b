// The audit log, over gRPC.
#pragma once

#include <string>
#include <utility>

#include "lasp/v1/audit_service.grpc.pb.h"
#include "server/page_token.h"
#include "server/service_parts.h"

namespace lasp::server {

class AuditService final : public v1::AuditService::CallbackService {
 public:
  // `page_secret` signs page tokens.
  AuditService(const ServiceParts& parts, std::string page_secret)
      : parts_(parts), page_tokens_(std::move(page_secret)) {}

  grpc::ServerUnaryReactor* ListAuditRecords(grpc::CallbackServerContext* context,
                                             const v1::ListAuditRecordsRequest* request,
                                             v1::ListAuditRecordsResponse* response) override;

 private:
  absl::Status List(const v1::ListAuditRecordsRequest& request,
                    v1::ListAuditRecordsResponse* response) const;

  const ServiceParts parts_;
  const PageTokenCodec page_tokens_;
};

}  // namespace lasp::server
