// The console: a read-only page for the browser, and the JSON that it is drawn from.
//
//   /                                            the page
//   /api/v1/projects/-/trainingJobs?filter=…     what gRPC's ListTrainingJobs answers, as JSON
//
// The JSON is protobuf's own with the names of the proto files. A caller proves itself by the
// header `Authorization: Bearer TOKEN`; there are no cookies. An answer has an ETag, and a request
// that names it in If-None-Match is answered 304 while nothing has changed.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "server/console/console_metrics.h"
#include "server/credentials.h"

namespace lasp::server {

struct ConsoleOptions {
  // host:port; port 0 picks a free one.
  std::string address;
  // To the coordinator's API, within this process.
  std::shared_ptr<grpc::Channel> api;
  // TLS where they have it. Not owned.
  const Credentials* credentials = nullptr;
  ConsoleMetrics* metrics = nullptr;
  const Clock* clock = nullptr;
  // As HttpServerOptions::request_limit.
  absl::Duration request_limit = absl::Seconds(30);
};

// Serves from Start until it is destroyed, which ends the calls under way: before the API's server
// does. Thread-safe.
class Console {
 public:
  // UNAVAILABLE, naming the port's holder, where the port is taken.
  static absl::StatusOr<std::unique_ptr<Console>> Start(const ConsoleOptions& options);
  ~Console();

  // With the port that was picked.
  const std::string& address() const;

 private:
  class Handler;

  Console();

  std::unique_ptr<Handler> handler_;
  std::unique_ptr<class HttpServer> server_;
};

}  // namespace lasp::server
