// What the command line says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/terminal.h"
#include "proto/interchange/element_type.h"

namespace lasp::client {

enum class OutputFormat { kTable, kWide, kJson, kYaml, kName };

struct GlobalOptions {
  // host:port.
  std::string server;
  // A project's id.
  std::string project;
  // Paths; empty where there is none.
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::string token_file;
  // From the environment or a context, never from the command line, which others can read.
  std::string token;
  // A context's name; empty for the current one.
  std::string context;
  OutputFormat output = OutputFormat::kTable;
  bool quiet = false;
  int verbosity = 0;
  ColorMode color = ColorMode::kAuto;
  // Of each call, where given.
  std::optional<absl::Duration> timeout;
};

enum class DryRun { kNone, kClient, kServer };

struct SubmitOptions {
  // A path, or "-" for the standard input.
  std::string file;
  std::string id;
  std::vector<std::string> settings;
  // `JOB` or `JOB/STEP`; empty for none.
  std::string start_from;
  bool wait = false;
  DryRun dry_run = DryRun::kNone;
};

struct ListOptions {
  std::string state;
  std::vector<std::string> labels;
  std::string filter;
  std::string order_by;
  bool all_pages = false;
  bool all_projects = false;
  int limit = 50;
};

struct MetricsOptions {
  int64_t from_step = 1;
  // 0 for the last.
  int64_t to_step = 0;
  // 0 for as many as fit the form of the output.
  int max_points = 0;
  bool follow = false;
};

struct TopOptions {
  // Between two looks on a terminal.
  absl::Duration interval = absl::Seconds(2);
  bool once = false;
  int limit = 20;
};

struct EventsOptions {
  bool watch = false;
  int limit = 50;
  bool warnings = false;
  bool all_projects = false;
};

struct PlotOptions {
  // A name of PlotMetrics().
  std::string metric = "loss";
  int64_t from_step = 1;
  // 0 for the last.
  int64_t to_step = 0;
  bool watch = false;
  // 0 for what the terminal has.
  int width = 0;
  int height = 0;
};

struct AuditOptions {
  // Empty for all.
  std::string principal;
  std::string resource;
  // A length of time before now, or RFC 3339; empty for all.
  std::string since;
  bool refused = false;
  // The newest.
  int limit = 50;
};

struct ExportOptions {
  std::string folder;
  ElementType type = ElementType::kFloat32;
  // As Hugging Face's own.
  int64_t max_file_bytes = 5'000'000'000;
};

struct LogOptions {
  bool follow = false;
  std::optional<int> rank;
  std::optional<int64_t> generation;
  // A length of time before now, or RFC 3339.
  std::string since;
  // 0 for all.
  int tail = 0;
  bool timestamps = false;
};

}  // namespace lasp::client
