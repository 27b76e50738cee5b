// Times and durations as text: RFC 3339 and "1.5s" for machines, "3m" for people.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lasp::client {

absl::Time FromProto(const google::protobuf::Timestamp& timestamp);
absl::Duration FromProto(const google::protobuf::Duration& duration);

// 2026-11-21T20:20:25.5Z, as many digits as there are.
std::string FormatTimestamp(const google::protobuf::Timestamp& timestamp);
absl::StatusOr<google::protobuf::Timestamp> ParseTimestamp(absl::string_view text);

// 1.5s, the form of protobuf's JSON.
std::string FormatDuration(const google::protobuf::Duration& duration);
absl::StatusOr<google::protobuf::Duration> ParseDuration(absl::string_view text);

// Two units at most, for people: 45s, 3m, 2h13m, 4d7h. Never negative.
std::string FormatAge(absl::Duration age);

// What a person types for a length of time: 90, 90s, 10m, 1h30m, 2d. INVALID_ARGUMENT otherwise,
// and for what is not greater than zero.
absl::StatusOr<absl::Duration> ParseSpan(absl::string_view text);

// The value of --since: a length of time before now, or a time.
absl::StatusOr<google::protobuf::Timestamp> ParseSince(const std::string& since);

}  // namespace lasp::client
