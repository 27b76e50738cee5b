#include "server/log_line.h"

#include <string>

namespace lasp::server {

LogLineParts SplitLogLine(absl::string_view line) {
  constexpr absl::string_view kPattern = "0000-00-00T00:00:00.000000Z ";
  LogLineParts parts;
  parts.text = line;
  if (line.size() < kPattern.size()) {
    return parts;
  }
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const bool digit = line[i] >= '0' && line[i] <= '9';
    if (kPattern[i] == '0' ? !digit : line[i] != kPattern[i]) {
      return parts;
    }
  }
  const auto number = [line](size_t position, size_t digits) {
    int value = 0;
    for (size_t i = position; i < position + digits; ++i) {
      value = value * 10 + (line[i] - '0');
    }
    return value;
  };
  const absl::CivilSecond second(number(0, 4), number(5, 2), number(8, 2), number(11, 2),
                                 number(14, 2), number(17, 2));
  parts.time = absl::FromCivil(second, absl::UTCTimeZone()) + absl::Microseconds(number(20, 6));
  parts.text = line.substr(kPattern.size());
  return parts;
}

}  // namespace lasp::server
