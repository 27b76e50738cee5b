#include "client/time_text.h"

#include <cstdint>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace lasp::client {
namespace {

// The range of google.protobuf.Duration.
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
// The range of google.protobuf.Timestamp: the years 1 to 9999.
constexpr int64_t kMinTimestampSeconds = -62'135'596'800;
constexpr int64_t kMaxTimestampSeconds = 253'402'300'799;

std::string Fraction(int64_t nanos) {
  if (nanos == 0) {
    return "";
  }
  std::string digits = absl::StrFormat(".%09d", nanos);
  digits.erase(digits.find_last_not_of('0') + 1);
  return digits;
}

}  // namespace

absl::Time FromProto(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

std::string FormatTimestamp(const google::protobuf::Timestamp& timestamp) {
  return absl::FormatTime("%E4Y-%m-%dT%H:%M:%E*SZ", FromProto(timestamp), absl::UTCTimeZone());
}

absl::StatusOr<google::protobuf::Timestamp> ParseTimestamp(absl::string_view text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
      absl::ToUnixSeconds(time) < kMinTimestampSeconds ||
      absl::ToUnixSeconds(time) > kMaxTimestampSeconds) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a time such as 2026-11-21T20:20:25Z"));
  }
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(absl::ToUnixSeconds(time));
  timestamp.set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(timestamp.seconds()))));
  return timestamp;
}

std::string FormatDuration(const google::protobuf::Duration& duration) {
  const bool negative = duration.seconds() < 0 || duration.nanos() < 0;
  return absl::StrCat(negative ? "-" : "", std::abs(duration.seconds()),
                      Fraction(std::abs(duration.nanos())), "s");
}

absl::StatusOr<google::protobuf::Duration> ParseDuration(absl::string_view text) {
  absl::Duration value;
  absl::string_view digits = text;
  if (!absl::ConsumeSuffix(&digits, "s") || !absl::ParseDuration(text, &value) ||
      digits.find_first_not_of("+-0123456789.") != absl::string_view::npos ||
      absl::AbsDuration(value) > absl::Seconds(kMaxDurationSeconds)) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not a duration such as 1.5s"));
  }
  google::protobuf::Duration duration;
  absl::Duration rest;
  duration.set_seconds(absl::IDivDuration(value, absl::Seconds(1), &rest));
  duration.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return duration;
}

std::string FormatAge(absl::Duration age) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(age));
  const int64_t minutes = seconds / 60;
  const int64_t hours = minutes / 60;
  const int64_t days = hours / 24;
  const auto two = [](int64_t big, const char* big_unit, int64_t small, const char* small_unit) {
    return small == 0 ? absl::StrCat(big, big_unit)
                      : absl::StrCat(big, big_unit, small, small_unit);
  };
  // A smaller unit is worth its place only beside a small number of the larger one.
  if (minutes < 2) {
    return absl::StrCat(seconds, "s");
  }
  if (minutes < 10) {
    return two(minutes, "m", seconds % 60, "s");
  }
  if (hours < 1) {
    return absl::StrCat(minutes, "m");
  }
  if (hours < 10) {
    return two(hours, "h", minutes % 60, "m");
  }
  if (days < 2) {
    return absl::StrCat(hours, "h");
  }
  return days < 10 ? two(days, "d", hours % 24, "h") : absl::StrCat(days, "d");
}

absl::StatusOr<absl::Duration> ParseSpan(absl::string_view text) {
  absl::Duration span;
  absl::string_view digits = text;
  int64_t days = 0;
  double seconds = 0;
  bool valid = false;
  if (absl::ConsumeSuffix(&digits, "d")) {
    valid = absl::SimpleAtoi(digits, &days);
    span = absl::Hours(24) * days;
  } else if (absl::SimpleAtod(text, &seconds)) {
    valid = true;
    span = absl::Seconds(seconds);
  } else {
    valid = absl::ParseDuration(text, &span);
  }
  if (!valid || span <= absl::ZeroDuration() || span == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a length of time such as 30s, 10m or 2h"));
  }
  return span;
}

absl::StatusOr<google::protobuf::Timestamp> ParseSince(const std::string& since) {
  const auto span = ParseSpan(since);
  if (!span.ok()) {
    auto time = ParseTimestamp(since);
    return time.ok() ? time
                     : absl::InvalidArgumentError(absl::StrCat(
                           "--since ", since,
                           ": expected a length of time such as 10m, or a time such as "
                           "2026-11-21T20:20:25Z"));
  }
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(absl::ToUnixSeconds(absl::Now() - *span));
  return timestamp;
}

}  // namespace lasp::client
