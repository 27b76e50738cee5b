// Logging to stderr: one JSON object a line for machines, plain text on a terminal.
//
//   LASP_LOG(kInfo, "job queued", {{"training_job", name}, {"state", "QUEUED"}});
//
// Never log tokens, NCCL ids or other secrets. Thread-safe.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lasp {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One key and its value in a log line.
struct LogField {
  LogField(absl::string_view k, const absl::AlphaNum& v) : key(k), value(v.Piece()) {}

  std::string key;
  std::string value;
};

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  // "lasp-server", "lasp-worker", "lasp-rank".
  std::string component;
  // Fields of every line, for example the rank.
  std::vector<LogField> fields;
};

// Once, early in main. Before it lines go out at level info without a component.
void InitializeLog(const LogOptions& options);

void LogAt(LogLevel level, const char* file, int line, absl::string_view message,
           std::initializer_list<LogField> fields = {});

}  // namespace lasp

// LASP_LOG(kInfo, "message", {{"key", value}, …}); the fields may be left out.
#define LASP_LOG(level, ...) ::lasp::LogAt(::lasp::LogLevel::level, __FILE__, __LINE__, __VA_ARGS__)
