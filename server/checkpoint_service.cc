#include "server/checkpoint_service.h"

#include "proto/rpc/error_details.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

absl::Status NotThereYet() {
  return ErrorWithReason(absl::StatusCode::kUnimplemented,
                         "this coordinator keeps no checkpoints: a job that restarts begins again "
                         "at step 1",
                         "CHECKPOINTS_UNAVAILABLE");
}

}  // namespace

grpc::ServerUnaryReactor* CheckpointService::GetCheckpoint(
    grpc::CallbackServerContext* context, const v1::GetCheckpointRequest* /*request*/,
    v1::Checkpoint* /*response*/) {
  return Finish(context, NotThereYet());
}

grpc::ServerUnaryReactor* CheckpointService::ListCheckpoints(
    grpc::CallbackServerContext* context, const v1::ListCheckpointsRequest* /*request*/,
    v1::ListCheckpointsResponse* /*response*/) {
  return Finish(context, NotThereYet());
}

}  // namespace lasp::server
