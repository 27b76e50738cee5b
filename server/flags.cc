#include "server/flags.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/status_macros.h"
#include "proto/rpc/version.h"
#include "proto/spec/path_lookup.h"
#include "server/listen_address.h"

ABSL_FLAG(std::string, data_dir, "",
          "Folder of the store and of the logs; made where it is missing. Required.");
ABSL_FLAG(std::string, api_address, "127.0.0.1:7070",
          "Where users connect. Port 0 picks a free one.");
ABSL_FLAG(std::string, worker_address, "127.0.0.1:7071", "Where agents connect.");
ABSL_FLAG(std::string, health_address, "127.0.0.1:7079",
          "Where probes ask: gRPC health v1, services \"\", \"readiness\" and \"liveness\". In "
          "plaintext, and whoever reaches it may.");
ABSL_FLAG(std::string, metrics_address, "127.0.0.1:9464",
          "Where Prometheus reads /metrics. In plaintext, and whoever reaches it may.");
ABSL_FLAG(
    std::string, console_address, "127.0.0.1:7072",
    "Where browsers find the read-only console, by HTTPS where there is TLS; empty for none.");
ABSL_FLAG(
    std::string, path_roots, "",
    "Folders, separated by commas, under which data paths of jobs must lie. A relative path is "
    "looked up under each in order.");
ABSL_FLAG(std::string, checkpoint_root, "",
          "Folder of the checkpoints, which the agents see as theirs: one file system, perhaps at "
          "another "
          "path, one user. Where empty, jobs write none and start again from their first step.");
ABSL_FLAG(
    std::string, backup_dir, "",
    "Where `lasp backup` has the store copied to; `backups` in --data_dir where empty. A folder "
    "of this coordinator alone, best on another disk.");
ABSL_FLAG(int, max_backups, 7, "Backups that are kept; the oldest go first.");
ABSL_FLAG(std::string, restore_from, "",
          "Puts this backup in the place of the store in --data_dir, and exits.");
ABSL_FLAG(bool, replace_store, false, "Lets --restore_from put a store that is there aside.");
ABSL_FLAG(int, quarantine_failures, lasp::server::CoreOptions{}.quarantine_failures,
          "A worker on which ranks have failed so often, within --quarantine_window, in a way that "
          "speaks against the host gets ranks only where nothing else has room; 0 for none.");
ABSL_FLAG(absl::Duration, quarantine_window, lasp::server::CoreOptions{}.quarantine_window,
          "How long a failure is held against a worker; `lasp drain NAME --undo` forgives all.");
ABSL_FLAG(std::string, retain_finished, "30d",
          "How long finished jobs are kept, for example 30d, 12h or 90m.");
ABSL_FLAG(std::string, retain_audit, "365d",
          "How long the audit log is kept, for example 365d, 12h or 90m.");
ABSL_FLAG(int64_t, max_audit_records, 1'000'000,
          "Changes that the audit log keeps, and a tenth of it as refusals; the oldest "
          "go first.");
ABSL_FLAG(int64_t, max_queued_jobs, 10'000,
          "Jobs of one project that may wait in the queue; more are refused.");
ABSL_FLAG(int, event_history, 10'000,
          "Events of jobs and workers held in memory for those who list and watch them.");
ABSL_FLAG(int, max_streams_a_principal, 1'000,
          "Watches and followed logs and metrics that one principal may have open.");
ABSL_FLAG(int, max_calls_a_second, 1'000,
          "Calls that one principal may make in a second, twice as many at once.");
ABSL_FLAG(
    int, max_connection_calls_a_second, lasp::server::ConnectionLimits{}.calls_a_second,
    "Calls that one connection may begin in a second; it is hung up on where it begins more. Twice "
    "--max_calls_a_second, or more.");
ABSL_FLAG(int64_t, max_host_bytes_a_second, 16 << 20,
          "Bytes that the users' connections of one host may send in a second, four times as many "
          "at once; they are hung up on where they send more.");
ABSL_FLAG(
    absl::Duration, flood_ban, lasp::server::ConnectionLimits{}.flood_ban,
    "How long the host of such a connection gets no new one; 0 for not at all. Callers behind "
    "one address are one host.");
ABSL_FLAG(int, max_connections, 8'000,
          "Connections that each port takes; others are hung up on. Each needs a file descriptor.");
ABSL_FLAG(int, max_connections_a_host, 1'000,
          "Of these, how many from one address. Agents behind one address count together.");
ABSL_FLAG(int, max_connections_a_principal, 1'000, "Connections over which one token may call.");
ABSL_FLAG(absl::Duration, handshake_timeout, absl::Seconds(30),
          "What TLS and HTTP/2 may take to begin on a new connection.");
ABSL_FLAG(absl::Duration, idle_timeout, absl::Minutes(15),
          "A connection without a call is closed after so long; clients open it again.");
ABSL_FLAG(int64_t, max_buffer_bytes, int64_t{1} << 30,
          "What all connections of a port may hold of requests that are not whole; beyond it calls "
          "and connections are ended.");
ABSL_FLAG(int, max_message_bytes, lasp::kMaxMessageBytes, "Bytes of one request; below 1 GiB.");
ABSL_FLAG(int, max_labels, lasp::server::LabelLimits{}.count, "Labels of one job.");
ABSL_FLAG(int, max_label_characters, lasp::server::LabelLimits{}.characters,
          "Characters of the value of a label.");
ABSL_FLAG(int64_t, max_log_bytes_a_rank, int64_t{64} << 20,
          "Bytes kept of the log of one rank; the oldest go first.");
ABSL_FLAG(int64_t, max_log_bytes, int64_t{64} << 30,
          "Bytes kept of the logs of all ranks together; the oldest go first.");
ABSL_FLAG(absl::Duration, slow_reader_limit, absl::Minutes(1),
          "A stream whose reader takes nothing for so long is ended with RESOURCE_EXHAUSTED.");
ABSL_FLAG(
    std::string, tls_cert, "",
    "This coordinator's certificate (PEM), for users and agents. This and the other files are "
    "read again when they change; deploy/credentials makes them.");
ABSL_FLAG(std::string, tls_key, "", "Its key; only its owner may have rights on the file.");
ABSL_FLAG(
    std::string, tls_client_ca, "",
    "The authority (PEM) whose certificates agents must show, with their --worker_id as a DNS "
    "name.");
ABSL_FLAG(std::string, token_file, "",
          "Hashes of the users' tokens and what they allow; only its owner may have rights on it. "
          "Without it every user of this host may do everything, and the API, the agents' port and "
          "the console stay on loopback.");
ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error.");

namespace lasp::server {
namespace {

absl::Status FlagError(absl::string_view flag, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", problem));
}

std::map<std::string, absl::CommandLineFlag*> OwnFlags() {
  std::map<std::string, absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::EndsWith(flag->Filename(), "server/flags.cc")) {
      flags[std::string(name)] = flag;
    }
  }
  return flags;
}

void PrintHelp() {
  std::printf(
      "lasp-server: accepts training jobs, schedules them on workers and watches over them.\n\n"
      "  lasp-server --data_dir=DIR [flags]\n"
      "  lasp-server --data_dir=DIR --restore_from=FILE [--replace_store]\n\n"
      "Once it serves, it prints one JSON line with the addresses on stdout; logs go to stderr.\n"
      "SIGTERM or SIGINT ends it; running jobs go on and are adopted by the next start.\n"
      "Exit codes: 0 ended as asked, 1 could not serve, 2 wrong usage.\n\nFlags:\n");
  for (const auto& [name, flag] : OwnFlags()) {
    std::printf("  --%s (default: %s)\n      %s\n", name.c_str(),
                flag->DefaultValue().empty() ? "none" : flag->DefaultValue().c_str(),
                flag->Help().c_str());
  }
  std::printf(
      "  --flagfile=FILE\n      Reads flags from a file, one a line.\n  --version\n  --help\n");
}

// Abseil ends the process with status 1 on a flag it does not know or cannot parse; wrong usage is
// status 2 here, so flags are looked at before Abseil sees them.
absl::Status CheckArguments(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::ConsumePrefix(&argument, "-") || argument.empty() || argument == "-") {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected argument '", argv[i], "': all settings are --flags"));
    }
    absl::ConsumePrefix(&argument, "-");
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    if (name == "help" || name == "h") {
      PrintHelp();
      std::exit(0);  // NOLINT(concurrency-mt-unsafe): no other thread exists yet
    }
    if (name == "version") {
      std::printf("lasp-server %s (%s)\n", Version(), Revision());
      std::exit(0);  // NOLINT(concurrency-mt-unsafe)
    }
    absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
    const bool negated = flag == nullptr && absl::StartsWith(name, "no");
    if (negated) {
      flag = absl::FindCommandLineFlag(name.substr(2));
    }
    if (flag == nullptr || (negated && !flag->IsOfType<bool>())) {
      return FlagError(name, "no such flag: --help lists them");
    }
    std::string problem;
    if (equals != absl::string_view::npos) {
      if (!flag->ParseFrom(argument.substr(equals + 1), &problem)) {
        return FlagError(
            name, absl::StrCat("'", argument.substr(equals + 1), "' is not allowed ", problem));
      }
    } else if (!flag->IsOfType<bool>() && ++i == argc) {
      return FlagError(name, "needs a value");
    }
  }
  return absl::OkStatus();
}

// TLS is all of its three files or none.
absl::StatusOr<CredentialOptions> ReadCredentialOptions() {
  CredentialOptions options;
  options.tls.certificate = absl::GetFlag(FLAGS_tls_cert);
  options.tls.key = absl::GetFlag(FLAGS_tls_key);
  options.tls.authority = absl::GetFlag(FLAGS_tls_client_ca);
  options.token_file = absl::GetFlag(FLAGS_token_file);
  if (options.tls.empty()) {
    return options;
  }
  const std::map<std::string, std::string> files = {{"tls_cert", options.tls.certificate},
                                                    {"tls_key", options.tls.key},
                                                    {"tls_client_ca", options.tls.authority}};
  for (const auto& [flag, path] : files) {
    if (path.empty()) {
      return FlagError(flag, "is missing: --tls_cert, --tls_key and --tls_client_ca go together");
    }
  }
  return options;
}

// Whoever reaches an address that is not loopback must prove who it is, users and agents alike;
// metrics and health carry no secrets and take no orders.
absl::Status CheckAddress(absl::string_view flag, const std::string& address, bool carries_secrets,
                          const CredentialOptions& credentials) {
  const auto parsed = ListenAddress::Parse(address);
  if (!parsed.ok()) {
    return FlagError(flag, parsed.status().message());
  }
  if (carries_secrets && !IsLoopbackAddress(address) &&
      (credentials.tls.empty() || credentials.token_file.empty())) {
    return FlagError(flag, absl::StrCat("'", address,
                                        "' is not loopback: add --tls_cert, --tls_key, "
                                        "--tls_client_ca and --token_file, which "
                                        "deploy/credentials makes, or listen on 127.0.0.1"));
  }
  return absl::OkStatus();
}

absl::Status ReadTimeouts(ServerOptions* options) {
  const auto read = [](absl::string_view flag, absl::Duration value, absl::Duration* timeout) {
    *timeout = value;
    return value >= absl::Seconds(1) && value <= absl::Hours(24)
               ? absl::OkStatus()
               : FlagError(flag,
                           absl::StrCat(absl::FormatDuration(value), " is not between 1s and 24h"));
  };
  LASP_RETURN_IF_ERROR(read("slow_reader_limit", absl::GetFlag(FLAGS_slow_reader_limit),
                            &options->slow_reader_limit));
  LASP_RETURN_IF_ERROR(read("handshake_timeout", absl::GetFlag(FLAGS_handshake_timeout),
                            &options->handshake_timeout));
  options->connections.flood_ban = absl::GetFlag(FLAGS_flood_ban);
  if (options->connections.flood_ban < absl::ZeroDuration() ||
      options->connections.flood_ban > absl::Hours(24)) {
    return FlagError("flood_ban", "it is not between 0 and 24h");
  }
  return read("idle_timeout", absl::GetFlag(FLAGS_idle_timeout), &options->idle_timeout);
}

absl::Status ReadLimits(ServerOptions* options) {
  const auto read = [](absl::string_view flag, auto value, int64_t least, auto* limit,
                       int64_t most = std::numeric_limits<int64_t>::max()) {
    *limit = value;
    if (value < least) {
      return FlagError(flag, absl::StrCat(value, " is below ", least));
    }
    return value <= most ? absl::OkStatus()
                         : FlagError(flag, absl::StrCat(value, " is above ", most));
  };
  CoreOptions& core = options->core;
  LASP_RETURN_IF_ERROR(
      read("max_queued_jobs", absl::GetFlag(FLAGS_max_queued_jobs), 1, &core.max_queued_jobs));
  LASP_RETURN_IF_ERROR(read("max_audit_records", absl::GetFlag(FLAGS_max_audit_records), 1'000,
                            &core.max_audit_records));
  LASP_RETURN_IF_ERROR(read("max_backups", absl::GetFlag(FLAGS_max_backups), 1, &core.max_backups));
  LASP_RETURN_IF_ERROR(
      read("event_history", absl::GetFlag(FLAGS_event_history), 1, &core.event_history));
  LASP_RETURN_IF_ERROR(read("max_streams_a_principal", absl::GetFlag(FLAGS_max_streams_a_principal),
                            1, &options->max_streams_a_principal));
  LASP_RETURN_IF_ERROR(read("max_calls_a_second", absl::GetFlag(FLAGS_max_calls_a_second), 1,
                            &options->max_calls_a_second));
  ConnectionLimits& connections = options->connections;
  LASP_RETURN_IF_ERROR(
      read("max_connections", absl::GetFlag(FLAGS_max_connections), 1, &connections.all));
  LASP_RETURN_IF_ERROR(read("max_connections_a_host", absl::GetFlag(FLAGS_max_connections_a_host),
                            1, &connections.a_host));
  LASP_RETURN_IF_ERROR(read("max_connections_a_principal",
                            absl::GetFlag(FLAGS_max_connections_a_principal), 1,
                            &connections.a_principal));
  LASP_RETURN_IF_ERROR(read("max_connection_calls_a_second",
                            absl::GetFlag(FLAGS_max_connection_calls_a_second), 1,
                            &connections.calls_a_second));
  LASP_RETURN_IF_ERROR(read("max_host_bytes_a_second", absl::GetFlag(FLAGS_max_host_bytes_a_second),
                            1 << 20, &connections.host_bytes_a_second));
  // A spec of many paths fits into what is the least; gRPC is told twice the most, in an int.
  LASP_RETURN_IF_ERROR(read("max_message_bytes", absl::GetFlag(FLAGS_max_message_bytes), 64 << 10,
                            &options->max_message_bytes, (1 << 30) - 1));
  LASP_RETURN_IF_ERROR(
      read("max_labels", absl::GetFlag(FLAGS_max_labels), 0, &options->labels.count));
  LASP_RETURN_IF_ERROR(read("max_label_characters", absl::GetFlag(FLAGS_max_label_characters), 1,
                            &options->labels.characters));
  LASP_RETURN_IF_ERROR(read("max_buffer_bytes", absl::GetFlag(FLAGS_max_buffer_bytes), 64 << 20,
                            &options->max_buffer_bytes));
  // A file of a rank's log; the rank's log is cut by whole files.
  const int64_t least = 2 * core.log_segment_bytes;
  LASP_RETURN_IF_ERROR(read("max_log_bytes_a_rank", absl::GetFlag(FLAGS_max_log_bytes_a_rank),
                            least, &core.max_log_bytes_per_rank));
  LASP_RETURN_IF_ERROR(
      read("max_log_bytes", absl::GetFlag(FLAGS_max_log_bytes), least, &core.max_log_bytes));
  return ReadTimeouts(options);
}

// As absl::ParseDuration, and whole days (`30d`), which it does not know.
absl::StatusOr<absl::Duration> ParseRetention(absl::string_view flag, const std::string& text) {
  absl::Duration duration;
  int days = 0;
  absl::string_view number = text;
  if (absl::ConsumeSuffix(&number, "d") && absl::SimpleAtoi(number, &days)) {
    duration = absl::Hours(24) * days;
  } else if (!absl::ParseDuration(text, &duration)) {
    duration = absl::ZeroDuration();
  }
  if (duration <= absl::ZeroDuration()) {
    return FlagError(
        flag, absl::StrCat("'", text, "' is not a duration above 0, such as 30d, 12h or 90m"));
  }
  return duration;
}

absl::StatusOr<LogLevel> ParseLogLevel(const std::string& name) {
  const std::map<std::string, LogLevel> levels = {{"debug", LogLevel::kDebug},
                                                  {"info", LogLevel::kInfo},
                                                  {"warning", LogLevel::kWarning},
                                                  {"error", LogLevel::kError}};
  const auto level = levels.find(name);
  if (level == levels.end()) {
    return FlagError("log_level", absl::StrCat("'", name, "': use debug, info, warning or error"));
  }
  return level->second;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLineFlags(int argc, char** argv) {
  LASP_RETURN_IF_ERROR(CheckArguments(argc, argv));
  absl::ParseCommandLine(argc, argv);

  CommandLine line;
  ServerOptions& options = line.options;
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (options.data_dir.empty()) {
    return FlagError("data_dir", "is required: name a folder on a local disk");
  }
  options.core.checkpoint_root = absl::GetFlag(FLAGS_checkpoint_root);
  options.core.backup_dir = absl::GetFlag(FLAGS_backup_dir);
  options.core.quarantine_failures = absl::GetFlag(FLAGS_quarantine_failures);
  options.core.quarantine_window = absl::GetFlag(FLAGS_quarantine_window);
  if (options.core.quarantine_failures < 0) {
    return FlagError("quarantine_failures", "is negative; 0 turns quarantine off");
  }
  if (options.core.quarantine_window <= absl::ZeroDuration() ||
      options.core.quarantine_window > absl::Hours(24 * 365)) {
    return FlagError("quarantine_window", "must be from 1s to 8760h");
  }
  line.restore = {.data_dir = options.data_dir,
                  .backup = absl::GetFlag(FLAGS_restore_from),
                  .replace = absl::GetFlag(FLAGS_replace_store)};
  if (line.restore.replace && line.restore.backup.empty()) {
    return FlagError("replace_store", "goes with --restore_from, which names the backup");
  }
  options.api_address = absl::GetFlag(FLAGS_api_address);
  options.worker_address = absl::GetFlag(FLAGS_worker_address);
  options.health_address = absl::GetFlag(FLAGS_health_address);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.console_address = absl::GetFlag(FLAGS_console_address);
  LASP_ASSIGN_OR_RETURN(options.credentials, ReadCredentialOptions());
  const CredentialOptions& known = options.credentials;
  LASP_RETURN_IF_ERROR(CheckAddress("api_address", options.api_address, true, known));
  LASP_RETURN_IF_ERROR(CheckAddress("worker_address", options.worker_address, true, known));
  LASP_RETURN_IF_ERROR(CheckAddress("health_address", options.health_address, false, known));
  LASP_RETURN_IF_ERROR(CheckAddress("metrics_address", options.metrics_address, false, known));
  if (!options.console_address.empty()) {
    LASP_RETURN_IF_ERROR(CheckAddress("console_address", options.console_address, true, known));
  }
  const auto roots = ParsePathRoots(absl::GetFlag(FLAGS_path_roots));
  if (!roots.ok()) {
    return FlagError("path_roots", roots.status().message());
  }
  options.path_roots = *roots;
  LASP_ASSIGN_OR_RETURN(options.retain_finished,
                        ParseRetention("retain_finished", absl::GetFlag(FLAGS_retain_finished)));
  LASP_ASSIGN_OR_RETURN(options.core.retain_audit,
                        ParseRetention("retain_audit", absl::GetFlag(FLAGS_retain_audit)));
  LASP_RETURN_IF_ERROR(ReadLimits(&options));
  LASP_ASSIGN_OR_RETURN(line.log_level, ParseLogLevel(absl::GetFlag(FLAGS_log_level)));
  return line;
}

}  // namespace lasp::server
