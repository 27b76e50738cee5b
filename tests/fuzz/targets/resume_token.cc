// Tokens that clients give back: of pages, of logs, of watches. What was not made here is refused.
#include "absl/strings/escaping.h"
#include "server/job_catalog.h"
#include "server/log_cursor.h"
#include "server/page_token.h"
#include "server/watch_hub.h"
#include "tests/fuzz/fuzz_target.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const codec = new server::PageTokenCodec("a secret");
  static const auto* const catalog = new server::JobCatalog;
  static auto* const watches =
      new server::WatchHub(catalog, "store", &SystemClock(), absl::Seconds(30));
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const absl::string_view text = fuzz::ToText(data, size);

  fuzz::Require(!codec->Decode({"jobs", "q"}, text, now).ok(), "a page token is made here");
  const absl::string_view place = text.substr(0, server::kMaxPageCursorBytes);
  std::string token = codec->Encode({"jobs", "q"}, place, now);
  const auto cursor = codec->Decode({"jobs", "q"}, token, now);
  fuzz::Require(cursor.ok() && *cursor == place, "a page token holds its cursor");
  fuzz::Require(!codec->Decode({"jobs", "other"}, token, now).ok(), "a token fits its query");
  // Also where only the rest of a base64 group changes: the bytes are compared.
  char& letter = token[size % token.size()];
  letter = letter == 'A' ? 'B' : 'A';
  std::string before;
  std::string after;
  if (absl::WebSafeBase64Unescape(codec->Encode({"jobs", "q"}, place, now), &before) &&
      absl::WebSafeBase64Unescape(token, &after) && before != after) {
    fuzz::Require(!codec->Decode({"jobs", "q"}, token, now).ok(), "a changed token is refused");
  }

  for (const std::string& log_token :
       {std::string(text), absl::WebSafeBase64Escape("logs1 uid" + std::string(text))}) {
    const auto logs = server::LogCursor::FromToken(log_token, "uid");
    if (logs.ok()) {
      const auto again = server::LogCursor::FromToken(logs->ToToken("uid"), "uid");
      fuzz::Require(again.ok() && again->offsets == logs->offsets, "a log token holds its cursor");
      fuzz::Require(!server::LogCursor::FromToken(log_token, "u").ok(), "a log token fits its job");
    }
  }
  if (!text.empty()) {
    (void)watches->Subscribe(std::string(text), [] {});
    (void)watches->Subscribe(absl::WebSafeBase64Escape(text), [] {});
  }
  return 0;
}

}  // namespace lasp
