#include "proto/interchange/strict_json.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/quoted_name.h"

namespace lasp {

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view file, absl::string_view text,
                                               int64_t max_bytes) {
  const auto wrong = [file](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
  };
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return wrong(absl::StrCat("has ", text.size(), " bytes; at most ", max_bytes));
  }
  // The keys of each object that is open.
  std::vector<std::set<std::string>> keys;
  std::string twice;
  const auto look = [&](int /*depth*/, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (event == nlohmann::json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == nlohmann::json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == nlohmann::json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && twice.empty()) {
        twice = QuotedName(key);
      }
    }
    return true;
  };
  nlohmann::json object =
      nlohmann::json::parse(text.begin(), text.end(), look, /*allow_exceptions=*/false);
  if (object.is_discarded() || !object.is_object()) {
    return wrong("is no JSON object");
  }
  if (!twice.empty()) {
    return wrong(absl::StrCat(twice, " is there twice"));
  }
  return object;
}

}  // namespace lasp
