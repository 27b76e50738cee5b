// The coordinator whole: store, core, gRPC servers, health and metrics, started and ended in order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/channel.h"
#include "server/connection_table.h"
#include "server/core_options.h"
#include "server/credentials.h"
#include "server/job_fields.h"

namespace lasp::server {

struct ServerOptions {
  // Made where it is missing.
  std::string data_dir;
  // host:port each; port 0 picks a free one.
  std::string api_address = "127.0.0.1:7070";
  std::string worker_address = "127.0.0.1:7071";
  std::string health_address = "127.0.0.1:7079";
  std::string metrics_address = "127.0.0.1:9464";
  // Empty for no console.
  std::string console_address = {};
  // Without TLS and tokens the addresses of users and agents should be on loopback: who reaches
  // them may do everything.
  CredentialOptions credentials;
  // Folders under which data paths of jobs must lie; absolute.
  std::vector<std::string> path_roots;
  absl::Duration retain_finished = absl::Hours(24 * 30);
  // How long a stream's write may wait for its reader.
  absl::Duration slow_reader_limit = absl::Seconds(60);
  // Watches and followed logs and metrics that one principal may have open; beyond it
  // RESOURCE_EXHAUSTED, TOO_MANY_STREAMS.
  int max_streams_a_principal = 1'000;
  // Of each port.
  ConnectionLimits connections;
  // A connection without a call is closed after this long.
  absl::Duration idle_timeout = absl::Minutes(15);
  // What TLS and HTTP/2 may take to begin on a new connection.
  absl::Duration handshake_timeout = absl::Seconds(30);
  // What the connections of a port together may hold of requests that are not read yet; beyond it
  // gRPC ends calls and connections.
  int64_t max_buffer_bytes = int64_t{1} << 30;
  // Of each principal; beyond it RESOURCE_EXHAUSTED, TOO_MANY_CALLS.
  int max_calls_a_second = 1'000;
  // Of a request; beyond it RESOURCE_EXHAUSTED, MESSAGE_TOO_LARGE.
  int max_message_bytes = kMaxMessageBytes;
  LabelLimits labels;
  // Every other limit of the core; its data_dir and retain_finished are set from those above.
  CoreOptions core;
};

struct ServerAddresses {
  std::string api_address;
  std::string worker_address;
  std::string health_address;
  std::string metrics_address;
  // Empty where there is no console.
  std::string console_address;
};

// Serves from Start to Stop. Thread-safe.
class Server {
 public:
  // FAILED_PRECONDITION (DATA_FOLDER_LOCKED) or UNAVAILABLE (PORT_IN_USE), naming the folder or the
  // port and its holder; INVALID_ARGUMENT or NOT_FOUND for certificates and tokens that cannot be
  // used; else as ServerCore::Open.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);

  // As Stop.
  ~Server();

  // With the ports that were picked.
  const ServerAddresses& addresses() const;

  // Refuses new calls, ends streams with UNAVAILABLE, lets the present calls finish for at most
  // `grace`, and closes the store when all it was given is written. Idempotent.
  void Stop(absl::Duration grace = absl::Seconds(5));

 private:
  struct Parts;

  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace lasp::server
