#include "proto/rpc/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lasp {
namespace {

struct LogState {
  std::shared_ptr<spdlog::logger> logger;
  std::string component;
  std::string json_fields;
  std::string text_fields;
  bool terminal = false;
};

// The bytes of the UTF-8 character at the start of `text`; 0 where there is none.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t length = byte(0) < 0x80                      ? 1
                        : byte(0) >= 0xc2 && byte(0) < 0xe0 ? 2
                        : byte(0) >= 0xe0 && byte(0) < 0xf0 ? 3
                        : byte(0) >= 0xf0 && byte(0) < 0xf5 ? 4
                                                            : 0;
  if (length > text.size()) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) {
      return 0;
    }
  }
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  const bool bad = (length == 3 && ((byte(0) == 0xe0 && byte(1) < 0xa0) ||
                                    (byte(0) == 0xed && byte(1) >= 0xa0))) ||
                   (length == 4 &&
                    ((byte(0) == 0xf0 && byte(1) < 0x90) || (byte(0) == 0xf4 && byte(1) >= 0x90)));
  return bad ? 0 : length;
}

// spdlog's patterns do not escape, so lines are made here and spdlog only carries them. Bytes that
// are no UTF-8 become U+FFFD, because JSON cannot hold them.
std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length != 1) {
      absl::StrAppend(&out, length == 0 ? "\\ufffd" : text.substr(0, length));
      text.remove_prefix(std::max<size_t>(length, 1));
      continue;
    }
    const char c = text.front();
    const auto byte = static_cast<unsigned char>(c);
    text.remove_prefix(1);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04x", byte);
    } else {
      out += c;
    }
  }
  out += '"';
  return out;
}

// A terminal must not be steered by what is logged.
std::string Printable(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += (byte < 0x20 || byte == 0x7f) ? '?' : c;
  }
  return out;
}

void AppendFields(const LogField* begin, const LogField* end, LogState* state) {
  for (const LogField* field = begin; field != end; ++field) {
    absl::StrAppend(&state->json_fields, ",", JsonString(field->key), ":",
                    JsonString(field->value));
    absl::StrAppend(&state->text_fields, " ", field->key, "=", Printable(field->value));
  }
}

LogState MakeState(const LogOptions& options) {
  LogState state;
  state.logger =
      std::make_shared<spdlog::logger>("lasp", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  state.logger->set_pattern("%v");
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                   spdlog::level::warn, spdlog::level::err};
  state.logger->set_level(kLevels[static_cast<int>(options.level)]);
  state.logger->flush_on(spdlog::level::debug);
  state.component = options.component;
  state.terminal = isatty(STDERR_FILENO) != 0;
  AppendFields(options.fields.data(), options.fields.data() + options.fields.size(), &state);
  return state;
}

// Replaced only by InitializeLog, which runs before other threads exist.
LogState& State() {
  static LogState* const state = new LogState(MakeState(LogOptions{}));
  return *state;
}

}  // namespace

void InitializeLog(const LogOptions& options) { State() = MakeState(options); }

void LogAt(LogLevel level, const char* file, int line, absl::string_view message,
           std::initializer_list<LogField> fields) {
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                   spdlog::level::warn, spdlog::level::err};
  constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  const int index = static_cast<int>(level);
  const LogState& state = State();
  if (!state.logger->should_log(kLevels[index])) {
    return;
  }
  LogState own;
  AppendFields(fields.begin(), fields.end(), &own);
  absl::string_view name = file;
  const size_t slash = name.rfind('/');
  if (slash != absl::string_view::npos) {
    name.remove_prefix(slash + 1);
  }
  const absl::Time now = absl::Now();
  std::string text;
  if (state.terminal) {
    text = absl::StrCat(absl::FormatTime("%H:%M:%E3S", now, absl::LocalTimeZone()), " ",
                        kNames[index], " ", Printable(message), state.text_fields, own.text_fields);
  } else {
    text = absl::StrCat(
        "{\"ts\":\"", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone()),
        "\",\"level\":\"", kNames[index], "\",\"component\":", JsonString(state.component),
        ",\"msg\":", JsonString(message), state.json_fields, own.json_fields,
        ",\"source\":", JsonString(absl::StrCat(name, ":", line)), "}");
  }
  state.logger->log(kLevels[index], spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace lasp
