#include "client/log_text.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/document.h"
#include "client/time_text.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

// Said by the prefix, by the command or by the line's beginning.
bool IsRepeated(const std::string& key) {
  static const auto* const keys = new std::set<std::string>{
      "ts", "level", "component", "msg", "training_job", "generation", "rank", "source"};
  return keys->count(key) > 0;
}

std::string Text(const Document& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

}  // namespace

std::string ReadableLogText(const lasp::v1::LogLine& line) {
  // Without exceptions: what is no JSON is "discarded".
  const Document object = Document::parse(line.text(), nullptr, false);
  if (!object.is_object() || Text(object, "msg").empty()) {
    return Printable(line.text());
  }
  const auto time = ParseTimestamp(Text(object, "ts"));
  std::string text = absl::StrCat(
      time.ok() ? absl::FormatTime("%H:%M:%S ", FromProto(*time), absl::LocalTimeZone()) : "",
      Text(object, "level"), " ", Text(object, "msg"));
  for (const auto& [key, value] : object.items()) {
    if (!IsRepeated(key)) {
      absl::StrAppend(&text, " ", key, "=",
                      value.is_string() ? value.get<std::string>() : JsonLine(value));
    }
  }
  return Printable(text);
}

}  // namespace lasp::client
