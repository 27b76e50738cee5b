// What users do with training jobs, over gRPC: checks what a request says and hands it to the core.
#pragma once

#include <string>
#include <vector>

#include "lasp/v1/training_job_service.grpc.pb.h"
#include "server/caller.h"
#include "server/page_token.h"
#include "server/service_parts.h"
#include "server/watch_encoder.h"

namespace lasp::server {

// Watches write bytes that are serialised already (watch_encoder.h). Creates, which come by the
// thousand, are parsed where they are checked and answered with the stored spec's own bytes.
class TrainingJobService final
    : public v1::TrainingJobService::WithRawCallbackMethod_CreateTrainingJob<
          v1::TrainingJobService::WithRawCallbackMethod_WatchTrainingJobs<
              v1::TrainingJobService::CallbackService>> {
 public:
  // `path_roots` as in path_lookup.h; `page_secret` signs page tokens.
  TrainingJobService(const ServiceParts& parts, std::vector<std::string> path_roots,
                     std::string page_secret);

  grpc::ServerUnaryReactor* CreateTrainingJob(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* bytes,
                                              grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetTrainingJob(grpc::CallbackServerContext* context,
                                           const v1::GetTrainingJobRequest* request,
                                           v1::TrainingJob* response) override;
  grpc::ServerUnaryReactor* ListTrainingJobs(grpc::CallbackServerContext* context,
                                             const v1::ListTrainingJobsRequest* request,
                                             v1::ListTrainingJobsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateTrainingJob(grpc::CallbackServerContext* context,
                                              const v1::UpdateTrainingJobRequest* request,
                                              v1::TrainingJob* response) override;
  grpc::ServerUnaryReactor* DeleteTrainingJob(grpc::CallbackServerContext* context,
                                              const v1::DeleteTrainingJobRequest* request,
                                              google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* CancelTrainingJob(grpc::CallbackServerContext* context,
                                              const v1::CancelTrainingJobRequest* request,
                                              v1::TrainingJob* response) override;
  grpc::ServerUnaryReactor* SuspendTrainingJob(grpc::CallbackServerContext* context,
                                               const v1::SuspendTrainingJobRequest* request,
                                               v1::TrainingJob* response) override;
  grpc::ServerUnaryReactor* ResumeTrainingJob(grpc::CallbackServerContext* context,
                                              const v1::ResumeTrainingJobRequest* request,
                                              v1::TrainingJob* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchTrainingJobs(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) override;

 private:
  // Checks the request, has it carried out and ends the call. Reads the job's data files.
  void Create(const grpc::ByteBuffer& bytes, const Caller& caller,
              grpc::ServerUnaryReactor* reactor, grpc::ByteBuffer* response);

  const ServiceParts parts_;
  const std::vector<std::string> path_roots_;
  const PageTokenCodec page_tokens_;
  WatchEncoder watch_encoder_;
};

}  // namespace lasp::server
