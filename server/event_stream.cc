#include "server/event_stream.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/job_list.h"

namespace lasp::server {
namespace {

// Events looked at in one pull, and so held by a slow reader.
constexpr int kBatch = 64;
// A reader of few events gets a fresh token after so many others, so that its own does not expire.
constexpr int kBookmarkAfter = 1'000;
constexpr char kTokenKind[] = "events";

}  // namespace

bool EventScope::Includes(const lasp::v1::Event& event) const {
  if (!subject.empty() && event.subject() != subject) {
    return false;
  }
  return absl::StartsWith(event.subject(), "workers/") ||
         (InProject(event.subject(), project) && grant->MaySeeJob(event.subject()));
}

std::string EventToken(const std::string& store_uuid, int64_t sequence) {
  return absl::WebSafeBase64Escape(absl::StrCat(kTokenKind, ":", store_uuid, ":", sequence));
}

absl::StatusOr<int64_t> ParseEventToken(const std::string& store_uuid, const std::string& token) {
  std::string plain;
  int64_t sequence = 0;
  const std::vector<std::string> parts = absl::WebSafeBase64Unescape(token, &plain)
                                             ? std::vector<std::string>(absl::StrSplit(plain, ':'))
                                             : std::vector<std::string>();
  if (parts.size() != 3 || parts[0] != kTokenKind || !absl::SimpleAtoi(parts[2], &sequence) ||
      sequence < 0) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                           "resume_token: not a token of this service; use one from a list or a "
                           "watch of events, or none for what is new",
                           "INVALID_RESUME_TOKEN");
  }
  if (parts[1] != store_uuid) {
    return ErrorWithReason(absl::StatusCode::kOutOfRange,
                           "resume_token: of another store; list the events again and watch from "
                           "the token of that list",
                           "RESUME_TOKEN_EXPIRED");
  }
  return sequence;
}

EventWatch::EventWatch(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                       EventScope scope, std::string store_uuid)
    : PullStream(streams, pool, slow_reader_limit),
      scope_(std::move(scope)),
      store_uuid_(std::move(store_uuid)) {}

absl::Status EventWatch::Subscribe(EventLog* log, int64_t after) {
  LASP_ASSIGN_OR_RETURN(subscription_, log->Subscribe(after, [this] { Wake(); }));
  cursor_ = after;
  return absl::OkStatus();
}

std::optional<absl::Status> EventWatch::Pull(std::vector<lasp::v1::WatchEventsResponse>* batch) {
  lasp::v1::WatchEventsResponse response;
  while (true) {
    const auto found = subscription_->Next(kBatch);
    if (!found.ok()) {
      return found.status();
    }
    if (found->empty() && has_token_) {
      return std::nullopt;
    }
    for (const EventPtr& event : *found) {
      if (scope_.Includes(*event)) {
        *response.add_events() = *event;
      } else {
        ++passed_over_;
      }
    }
    cursor_ = found->empty() ? cursor_ : found->back()->sequence();
    if (response.events_size() > 0 || passed_over_ >= kBookmarkAfter || !has_token_) {
      passed_over_ = 0;
      has_token_ = true;
      response.set_resume_token(EventToken(store_uuid_, cursor_));
      batch->push_back(std::move(response));
      return std::nullopt;
    }
  }
}

}  // namespace lasp::server
