// Values of flags, each with an error that says what was expected.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/options.h"

namespace lasp::client {

absl::StatusOr<int64_t> ReadCount(absl::string_view flag, const std::string& value, int64_t lowest,
                                  int64_t highest);

// The same into `place`.
template <typename Value, typename Place>
absl::Status SetNumber(absl::string_view flag, const std::string& value, int64_t lowest,
                       int64_t highest, Place* place) {
  const absl::StatusOr<int64_t> number = ReadCount(flag, value, lowest, highest);
  if (number.ok()) {
    *place = static_cast<Value>(*number);
  }
  return number.status();
}

// The index of `value` in `choices`.
absl::StatusOr<size_t> ReadChoice(absl::string_view flag, const std::string& value,
                                  const std::vector<std::string>& choices);
// host:port; a host alone gets the port 7070.
absl::StatusOr<std::string> ReadServer(absl::string_view origin, const std::string& value);
// An id.
absl::StatusOr<std::string> ReadProject(absl::string_view origin, const std::string& value);

const std::vector<std::string>& OutputChoices();
const std::vector<std::string>& ColorChoices();

}  // namespace lasp::client
