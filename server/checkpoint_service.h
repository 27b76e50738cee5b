// Checkpoints do not exist yet: every method says so.
#pragma once

#include "lasp/v1/checkpoint_service.grpc.pb.h"

namespace lasp::server {

class CheckpointService final : public v1::CheckpointService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetCheckpoint(grpc::CallbackServerContext* context,
                                          const v1::GetCheckpointRequest* request,
                                          v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override;
};

}  // namespace lasp::server
