#include "server/event_service.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/access_interceptor.h"
#include "server/ended_stream.h"
#include "server/event_text.h"
#include "server/job_list.h"
#include "server/job_lookup.h"
#include "server/principal.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

// Leaves room below the 4 MiB a message may have.
constexpr size_t kMaxPageBytes = 3 << 20;

}  // namespace

EventService::EventService(const ServiceParts& parts, std::string page_secret)
    : parts_(parts), page_tokens_(std::move(page_secret)) {}

absl::StatusOr<EventScope> EventService::ScopeOf(const std::string& parent,
                                                 const std::string& subject, GrantPtr grant) const {
  EventScope scope{.project = {}, .subject = subject, .grant = std::move(grant)};
  LASP_ASSIGN_OR_RETURN(scope.project, ParseProjectName(parent, /*allow_any=*/true));
  if (subject.empty()) {
    return scope;
  }
  if (absl::StartsWith(subject, "workers/")) {
    LASP_RETURN_IF_ERROR(ParseWorkerName(subject).status());
    return scope;
  }
  LASP_RETURN_IF_ERROR(ParseJobName(subject).status());
  if (!InProject(subject, scope.project)) {
    return InvalidFields({{"subject", absl::StrCat("is ", subject, ": not of ", parent)}},
                         "INVALID_REQUEST");
  }
  if (!scope.grant->MaySeeJob(subject)) {
    return JobNotFound(subject);
  }
  return scope;
}

grpc::ServerUnaryReactor* EventService::ListEvents(grpc::CallbackServerContext* context,
                                                   const v1::ListEventsRequest* request,
                                                   v1::ListEventsResponse* response) {
  auto scope = ScopeOf(request->parent(), request->subject(),
                       GrantOf(parts_.access, *context, parts_.clock->Now()));
  if (!scope.ok()) {
    return Finish(context, scope.status());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor,
                     [this, reactor, request, response, scope = *std::move(scope)] {
                       reactor->Finish(ToWireStatus(List(*request, scope, response)));
                     });
}

absl::Status EventService::List(const v1::ListEventsRequest& request, const EventScope& scope,
                                v1::ListEventsResponse* response) const {
  LASP_ASSIGN_OR_RETURN(const int page_size, ResolvePageSize(request.page_size()));
  const std::vector<std::string> bound = {"events", request.parent(), request.subject()};
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!request.page_token().empty()) {
    LASP_ASSIGN_OR_RETURN(const std::string cursor,
                          page_tokens_.Decode(bound, request.page_token(), parts_.clock->Now()));
    if (!absl::SimpleAtoi(cursor, &before)) {
      return absl::InternalError("page_token: signed here, yet not readable");
    }
  }
  // Before the events are read: a watch from here may repeat one of this list but misses none.
  response->set_resume_token(
      EventToken(parts_.core->store().uuid(), parts_.core->events().newest()));
  LASP_ASSIGN_OR_RETURN(std::vector<v1::Event> events, Newest(scope, before, page_size + 1));
  size_t bytes = 0;
  for (v1::Event& event : events) {
    if (response->events_size() == page_size || bytes > kMaxPageBytes) {
      const int64_t last = response->events(response->events_size() - 1).sequence();
      response->set_next_page_token(
          page_tokens_.Encode(bound, absl::StrCat(last), parts_.clock->Now()));
      break;
    }
    bytes += event.ByteSizeLong();
    *response->add_events() = std::move(event);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Event>> EventService::Newest(const EventScope& scope, int64_t before,
                                                            int limit) const {
  std::vector<v1::Event> newest;
  const bool of_job = absl::StartsWith(scope.subject, "projects/");
  if (const JobViewPtr job = of_job ? parts_.core->jobs().Find(scope.subject) : nullptr) {
    LASP_ASSIGN_OR_RETURN(const std::vector<StoredTransition> rows,
                          parts_.core->store().TransitionsBefore(job->id, before, limit));
    newest.reserve(rows.size());
    for (const StoredTransition& row : rows) {
      newest.push_back(EventOfTransition(scope.subject, row.revision, row.transition));
    }
    AddUnstoredEvents(*job, before, &newest);
    if (std::ssize(newest) > limit) {
      newest.resize(static_cast<size_t>(limit));
    }
    return newest;
  }
  const std::vector<EventPtr> held = parts_.core->events().Before(before);
  for (auto event = held.rbegin(); event != held.rend() && std::ssize(newest) < limit; ++event) {
    if (scope.Includes(**event)) {
      newest.push_back(**event);
    }
  }
  // Of what is gone its last events are still told.
  if (newest.empty() && of_job) {
    return JobNotFound(scope.subject);
  }
  return newest;
}

void EventService::AddUnstoredEvents(const JobView& job, int64_t before,
                                     std::vector<v1::Event>* newest) const {
  const absl::Time created = FromProtoTime(job.job.create_time());
  for (const EventPtr& event : parts_.core->events().Before(before)) {
    // The latest events may hold some of a job that had the name before and is deleted.
    if (event->subject() == job.job.name() && ChangesNoState(*event) &&
        FromProtoTime(event->time()) >= created) {
      newest->push_back(*event);
    }
  }
  std::sort(newest->begin(), newest->end(),
            [](const v1::Event& a, const v1::Event& b) { return a.sequence() > b.sequence(); });
}

grpc::ServerWriteReactor<v1::WatchEventsResponse>* EventService::WatchEvents(
    grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) {
  using Response = v1::WatchEventsResponse;
  auto scope = ScopeOf(request->parent(), request->subject(),
                       GrantOf(parts_.access, *context, parts_.clock->Now()));
  if (!scope.ok()) {
    return EndedStream<Response>(scope.status());
  }
  const std::string& uuid = parts_.core->store().uuid();
  EventLog& log = parts_.core->events();
  absl::StatusOr<int64_t> after = log.newest();
  if (!request->resume_token().empty()) {
    after = ParseEventToken(uuid, request->resume_token());
    if (!after.ok()) {
      return EndedStream<Response>(after.status());
    }
  }
  auto stream = std::make_shared<EventWatch>(parts_.streams, parts_.watch_pool,
                                             parts_.slow_reader_limit, *std::move(scope), uuid);
  if (const absl::Status status = stream->Subscribe(&log, *after); !status.ok()) {
    return EndedStream<Response>(status);
  }
  stream->KeepWhile(AccessLease(
      parts_.access, GrantOf(parts_.access, *context, parts_.clock->Now()), parts_.clock));
  return stream->Open(PrincipalOf(*context));
}

}  // namespace lasp::server
