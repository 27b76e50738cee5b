#include "proto/rpc/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

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

// spdlog's patterns do not escape, so lines are made here and spdlog only carries them.
std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
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
