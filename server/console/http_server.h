// HTTP/1.1 on one port, by libmicrohttpd: one thread for all connections, which no request holds
// up, and bounds on whatever a client could make much of.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "server/console/http_message.h"
#include "server/credentials.h"

namespace lasp::server {

// What answers. Thread-safe.
class HttpHandler {
 public:
  using Respond = std::function<void(HttpResponse)>;

  virtual ~HttpHandler() = default;

  // The answer; or nothing, where `later` will be called once, from any thread. Must not block.
  // Only GET and HEAD without a body come here; the server leaves out the body of an answer to
  // HEAD.
  virtual std::optional<HttpResponse> Handle(const HttpRequest& request, Respond later) = 0;

  // The answer to what does not come to Handle: another method (405), a request with a body (400),
  // one that comes while the server stops (503).
  virtual HttpResponse Refuse(int code) = 0;

  // A connection was ended because its client was slow.
  virtual void OnSlowClient() = 0;
};

struct HttpServerOptions {
  // The flag that names the address, for messages: "console_address".
  std::string flag;
  // host:port; port 0 picks a free one.
  std::string address;
  // Their TLS; null for plaintext. Not owned.
  const Credentials* credentials = nullptr;
  const Clock* clock = nullptr;
  // More are closed as they come.
  unsigned max_connections = 256;
  unsigned max_connections_an_address = 64;
  // Of the first line and all headers; beyond it 414 or 431.
  size_t max_header_bytes = size_t{16} << 10;
  // A connection that says nothing is closed after this, in whole seconds.
  absl::Duration idle_limit = absl::Seconds(10);
  // The longest time from a request's beginning to the end of its answer.
  absl::Duration request_limit = absl::Seconds(30);
};

// Serves from Start until it is destroyed. Thread-safe.
class HttpServer {
 public:
  // UNAVAILABLE, naming the port's holder, where the port is taken. `handler` outlives it.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           HttpHandler* handler);

  // Waits for the answers that the handler still owes.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // From now on every request is refused with 503.
  void Refuse();

  // With the port that was picked.
  const std::string& address() const { return address_; }

  size_t connections() const;

 private:
  struct Parts;

  explicit HttpServer(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
  std::string address_;
};

}  // namespace lasp::server
