#include "server/audit_service.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/status_macros.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

absl::StatusOr<AuditPosition> ParsePosition(const std::string& cursor) {
  AuditPosition position;
  const std::vector<std::string> rows = absl::StrSplit(cursor, ',');
  if (rows.size() != 2 || !absl::SimpleAtoi(rows[0], &position.change) ||
      !absl::SimpleAtoi(rows[1], &position.refusal)) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                           "page_token: is not of this list; begin with an empty one",
                           "PAGE_TOKEN_INVALID");
  }
  return position;
}

}  // namespace

grpc::ServerUnaryReactor* AuditService::ListAuditRecords(grpc::CallbackServerContext* context,
                                                         const v1::ListAuditRecordsRequest* request,
                                                         v1::ListAuditRecordsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor, [this, reactor, request, response] {
    reactor->Finish(ToWireStatus(List(*request, response)));
  });
}

absl::Status AuditService::List(const v1::ListAuditRecordsRequest& request,
                                v1::ListAuditRecordsResponse* response) const {
  LASP_ASSIGN_OR_RETURN(const int page_size, ResolvePageSize(request.page_size()));
  AuditQuery query;
  query.principal = request.principal();
  query.resource = request.resource();
  query.refusals_only = request.refused();
  if (request.has_start_time()) {
    query.start = FromProtoTime(request.start_time());
  }
  if (request.has_end_time()) {
    query.end = FromProtoTime(request.end_time());
  }
  const std::vector<std::string> bound = {"audit",
                                          query.principal,
                                          query.resource,
                                          request.refused() ? "refused" : "",
                                          absl::StrCat(absl::ToUnixMicros(query.start)),
                                          absl::StrCat(absl::ToUnixMicros(query.end))};
  const absl::Time now = parts_.clock->Now();
  if (!request.page_token().empty()) {
    LASP_ASSIGN_OR_RETURN(const std::string cursor,
                          page_tokens_.Decode(bound, request.page_token(), now));
    LASP_ASSIGN_OR_RETURN(query.before, ParsePosition(cursor));
  }
  LASP_ASSIGN_OR_RETURN(AuditPage page, parts_.core->store().ReadAudit(query, page_size));
  response->mutable_audit_records()->Reserve(static_cast<int>(page.records.size()));
  for (v1::AuditRecord& record : page.records) {
    *response->add_audit_records() = std::move(record);
  }
  if (!page.last) {
    response->set_next_page_token(
        page_tokens_.Encode(bound, absl::StrCat(page.next.change, ",", page.next.refusal), now));
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
