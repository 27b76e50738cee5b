#include "client/flag_values.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/nearest_name.h"
#include "proto/rpc/resource_name.h"

namespace lasp::client {
namespace {

constexpr char kDefaultPort[] = ":7070";
constexpr int kMaxPort = 65'535;

absl::Status Expected(absl::string_view flag, absl::string_view value, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", value, ": expected ", what));
}

}  // namespace

absl::StatusOr<int64_t> ReadCount(absl::string_view flag, const std::string& value, int64_t lowest,
                                  int64_t highest) {
  int64_t count = 0;
  if (!absl::SimpleAtoi(value, &count) || count < lowest || count > highest) {
    return Expected(flag, value, absl::StrCat("a whole number from ", lowest, " to ", highest));
  }
  return count;
}

absl::StatusOr<size_t> ReadChoice(absl::string_view flag, const std::string& value,
                                  const std::vector<std::string>& choices) {
  const auto found = std::find(choices.begin(), choices.end(), value);
  if (found == choices.end()) {
    return Expected(
        flag, value,
        absl::StrCat("one of ", absl::StrJoin(choices, ", "), Suggestion(value, choices)));
  }
  return static_cast<size_t>(found - choices.begin());
}

absl::StatusOr<std::string> ReadServer(absl::string_view origin, const std::string& value) {
  constexpr char kForm[] = "HOST:PORT, such as 127.0.0.1:7070";
  if (value.empty() || absl::StrContains(value, '/') || absl::StrContains(value, ' ')) {
    return Expected(origin, value, kForm);
  }
  // An IPv6 address stands in brackets before its port.
  const size_t colon = value.rfind(':');
  if (colon == std::string::npos || value.back() == ']') {
    return value + kDefaultPort;
  }
  int port = 0;
  if (colon == 0 || !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 1 ||
      port > kMaxPort) {
    return Expected(origin, value, kForm);
  }
  return value;
}

absl::StatusOr<std::string> ReadProject(absl::string_view origin, const std::string& value) {
  if (!IsValidId(value)) {
    return Expected(origin, value, "a project's id: small letters, digits and '-'");
  }
  return value;
}

const std::vector<std::string>& OutputChoices() {
  static const auto* const choices =
      new std::vector<std::string>{"table", "wide", "json", "yaml", "name"};
  return *choices;
}

const std::vector<std::string>& ColorChoices() {
  static const auto* const choices = new std::vector<std::string>{"auto", "always", "never"};
  return *choices;
}

}  // namespace lasp::client
