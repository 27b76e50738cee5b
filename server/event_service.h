// The events of jobs and workers, over gRPC.
#pragma once

#include <string>

#include "lasp/v1/event_service.grpc.pb.h"
#include "server/event_stream.h"
#include "server/page_token.h"
#include "server/service_parts.h"

namespace lasp::server {

class EventService final : public v1::EventService::CallbackService {
 public:
  // `page_secret` signs page tokens.
  EventService(const ServiceParts& parts, std::string page_secret);

  grpc::ServerUnaryReactor* ListEvents(grpc::CallbackServerContext* context,
                                       const v1::ListEventsRequest* request,
                                       v1::ListEventsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) override;

 private:
  // INVALID_ARGUMENT for a parent or a subject that is none, and for a job of another project.
  absl::StatusOr<EventScope> ScopeOf(const std::string& parent, const std::string& subject,
                                     GrantPtr grant) const;
  absl::Status List(const v1::ListEventsRequest& request, const EventScope& scope,
                    v1::ListEventsResponse* response) const;
  // To those of the job that the store holds, newest first: what only the latest events hold.
  void AddUnstoredEvents(const JobView& job, int64_t before, std::vector<v1::Event>* newest) const;
  // Below `before`, newest first, at most `limit`.
  absl::StatusOr<std::vector<v1::Event>> Newest(const EventScope& scope, int64_t before,
                                                int limit) const;

  const ServiceParts parts_;
  const PageTokenCodec page_tokens_;
};

}  // namespace lasp::server
