// What users do with checkpoints, over gRPC.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "lasp/v1/checkpoint_service.grpc.pb.h"
#include "server/checkpoint_export.h"
#include "server/page_token.h"
#include "server/service_parts.h"

namespace lasp::server {

class CheckpointService final : public v1::CheckpointService::CallbackService {
 public:
  CheckpointService(const ServiceParts& parts, std::string page_secret)
      : parts_(parts), page_tokens_(std::move(page_secret)) {}

  grpc::ServerUnaryReactor* GetCheckpoint(grpc::CallbackServerContext* context,
                                          const v1::GetCheckpointRequest* request,
                                          v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override;
  grpc::ServerUnaryReactor* VerifyCheckpoint(grpc::CallbackServerContext* context,
                                             const v1::VerifyCheckpointRequest* request,
                                             v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* DeleteCheckpoint(grpc::CallbackServerContext* context,
                                             const v1::DeleteCheckpointRequest* request,
                                             v1::Checkpoint* response) override;
  grpc::ServerWriteReactor<v1::ExportCheckpointResponse>* ExportCheckpoint(
      grpc::CallbackServerContext* context, const v1::ExportCheckpointRequest* request) override;

 private:
  // FAILED_PRECONDITION where there is no --checkpoint_root.
  absl::Status CheckKept() const;
  absl::StatusOr<v1::Checkpoint> Get(const std::string& name) const;
  absl::Status List(const v1::ListCheckpointsRequest& request,
                    v1::ListCheckpointsResponse* response) const;

  const ServiceParts parts_;
  const PageTokenCodec page_tokens_;
  const ExportPlace::Count exports_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace lasp::server
