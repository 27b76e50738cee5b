// One user's watch over events.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lasp/v1/event_service.pb.h"
#include "server/event_log.h"
#include "server/grant.h"
#include "server/pull_stream.h"

namespace lasp::server {

// Which events a list or a watch has.
struct EventScope {
  // A project or `-`.
  std::string project;
  // A job's or worker's name; empty for all.
  std::string subject;
  // Only jobs that it shows. Workers are for all to see.
  GrantPtr grant;

  bool Includes(const lasp::v1::Event& event) const;
};

// `store_uuid` ties tokens to one store.
std::string EventToken(const std::string& store_uuid, int64_t sequence);
// INVALID_ARGUMENT for what is no such token, OUT_OF_RANGE for one of another store.
absl::StatusOr<int64_t> ParseEventToken(const std::string& store_uuid, const std::string& token);

class EventWatch final : public PullStream<lasp::v1::WatchEventsResponse> {
 public:
  EventWatch(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
             EventScope scope, std::string store_uuid);

  // Before Open. Errors as EventLog::Subscribe.
  absl::Status Subscribe(EventLog* log, int64_t after);

 private:
  std::optional<absl::Status> Pull(std::vector<lasp::v1::WatchEventsResponse>* batch) override;

  const EventScope scope_;
  const std::string store_uuid_;
  std::unique_ptr<EventLog::Subscription> subscription_;
  // The last event looked at.
  int64_t cursor_ = 0;
  // Events that were none of the reader's business since it last had a token. At first it has none.
  int passed_over_ = 0;
  bool has_token_ = false;
};

}  // namespace lasp::server
